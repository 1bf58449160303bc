use std::time::Duration;

use tidegate_proto::v1::{self, serve_diagnoses_request::Message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::{
    house::{House, Identity, code},
    presence::Agent,
};

/// An agent that takes questions.
struct Doctor {
    messages: mpsc::Sender<v1::ServeDiagnosesRequest>,
    questions: Streaming<v1::ServeDiagnosesResponse>,
}

impl Doctor {
    async fn start(house: &House, identity: &Identity) -> Self {
        let (messages, incoming) = mpsc::channel(4);
        let questions = house
            .known(identity)
            .diagnoses()
            .serve_diagnoses(ReceiverStream::new(incoming))
            .await;
        let doctor = Self {
            messages,
            questions: questions.unwrap().into_inner(),
        };
        doctor.say(Message::Ready(v1::DiagnosesReady {})).await;
        doctor
    }

    async fn say(&self, message: Message) {
        let message = v1::ServeDiagnosesRequest {
            message: Some(message),
        };
        self.messages.send(message).await.unwrap();
    }

    async fn asked(&mut self) -> v1::ServeDiagnosesResponse {
        self.questions.message().await.unwrap().unwrap()
    }

    async fn answer(&self, id: &str, host: &str) {
        let diagnosis = v1::Diagnosis {
            host: host.to_owned(),
            ..v1::Diagnosis::default()
        };
        let answer = v1::DiagnosisAnswer {
            id: id.to_owned(),
            diagnosis: Some(diagnosis),
        };
        self.say(Message::Answer(answer)).await;
    }
}

async fn ask(house: &House, host_id: &str) -> Result<v1::Diagnosis, Status> {
    let question = v1::DiagnoseRequest {
        database: "orders".to_owned(),
        db_user: "reader".to_owned(),
        host_id: host_id.to_owned(),
        ..v1::DiagnoseRequest::default()
    };
    let asked = house.admin().diagnoses().diagnose(question).await;
    asked.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_question_reaches_its_agent_and_the_answer_whoever_asked() {
    let house = House::new().await;
    let identity = house.host(&["db"]).await;
    let _up = Agent::start(&house, &identity, &["db"]).await;
    let host_id = identity.host_id.clone();
    let mut doctor = Doctor::start(&house, &identity).await;

    for round in ["first", "second"] {
        let asking = ask(&house, &host_id);
        let answering = async {
            let asked = doctor.asked().await;
            let question = asked.question.unwrap();
            assert_eq!(
                (&*question.database, &*question.db_user),
                ("orders", "reader")
            );
            // An answer to another question is nobody's.
            doctor.answer("0123", "wrong").await;
            doctor.answer(&asked.id, round).await;
        };
        let (answer, ()) = tokio::join!(asking, answering);
        assert_eq!(answer.unwrap().host, round);
    }
    let events = house.admin().audit();
    let listed = events
        .clone()
        .list_events(v1::ListEventsRequest::default())
        .await;
    let listed = listed.unwrap().into_inner().events;
    assert_eq!(
        listed
            .iter()
            .filter(|event| event.event == "db.diagnose")
            .count(),
        2
    );
}

#[tokio::test]
async fn an_agent_has_one_question_at_a_time() {
    let house = House::new().await;
    let identity = house.host(&["db"]).await;
    let _up = Agent::start(&house, &identity, &["db"]).await;
    let host_id = identity.host_id.clone();
    let mut doctor = Doctor::start(&house, &identity).await;

    let asking = ask(&house, &host_id);
    let other = async {
        let asked = doctor.asked().await;
        assert_eq!(code(ask(&house, &host_id).await), Code::ResourceExhausted);
        doctor.answer(&asked.id, "a").await;
    };
    let (answer, ()) = tokio::join!(asking, other);
    assert_eq!(answer.unwrap().host, "a");
}

#[tokio::test]
async fn who_is_not_up_who_takes_no_questions_and_who_may_not_ask_are_told_apart() {
    let house = House::new().await;
    assert_eq!(code(ask(&house, "nobody").await), Code::NotFound);
    let identity = house.host(&["db"]).await;
    let _up = Agent::start(&house, &identity, &["db"]).await;
    let begun = std::time::Instant::now();
    assert_eq!(
        code(ask(&house, &identity.host_id).await),
        Code::Unavailable
    );
    assert!(begun.elapsed() < Duration::from_secs(60));

    let person = house.person("alice", &["access"]).await;
    let question = v1::DiagnoseRequest::default();
    let asked = house.known(&person).diagnoses().diagnose(question).await;
    assert_eq!(code(asked), Code::PermissionDenied);
}

#[tokio::test]
async fn an_agent_that_was_on_its_way_gets_the_question_and_a_newer_stream_takes_over() {
    let house = House::new().await;
    let identity = house.host(&["db"]).await;
    let _up = Agent::start(&house, &identity, &["db"]).await;
    let host_id = identity.host_id.clone();
    let mut older = Doctor::start(&house, &identity).await;
    let asking = ask(&house, &host_id);
    let late = async {
        older.asked().await;
        let mut newer = Doctor::start(&house, &identity).await;
        let asked = newer.asked().await;
        assert_eq!(
            older.questions.message().await.unwrap_err().code(),
            Code::Aborted
        );
        newer.answer(&asked.id, "newer").await;
        newer
    };
    let (answer, _newer) = tokio::join!(asking, late);
    assert_eq!(answer.unwrap().host, "newer");
}
