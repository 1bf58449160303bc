//! AWS STS as far as the auth service sees it: what it was asked, and an answer that a test chooses.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::json;
use tidegate_service::settings::StsEndpoint;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// What one call is answered with.
pub(super) enum Answer {
    /// The connection ends without one.
    HangUp,
    /// A status and a body.
    Reply(u16, String),
}

#[derive(Default)]
struct Heard {
    requests: Vec<String>,
    answers: VecDeque<Answer>,
}

/// Serves until the test ends.
#[derive(Clone)]
pub(super) struct FakeSts {
    heard: Arc<Mutex<Heard>>,
    address: SocketAddr,
}

pub(super) fn identity(account: &str, arn: &str) -> Answer {
    let result = json!({"Account": account, "Arn": arn, "UserId": "AROA:i-0"});
    let body = json!({"GetCallerIdentityResponse": {"GetCallerIdentityResult": result}});
    Answer::Reply(200, body.to_string())
}

pub(super) fn error(status: u16, code: &str) -> Answer {
    let body = json!({"Error": {"Code": code, "Message": "in AWS's words", "Type": "Sender"}});
    Answer::Reply(status, body.to_string())
}

impl FakeSts {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            heard: Arc::default(),
            address: listener.local_addr().unwrap(),
        };
        let heard = fake.heard.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, heard.clone()));
            }
        });
        fake
    }

    pub(super) fn endpoint(&self) -> StsEndpoint {
        format!("http://{}", self.address).parse().unwrap()
    }

    /// What the next call is answered with.
    pub(super) fn answer(&self, answer: Answer) {
        self.heard.lock().unwrap().answers.push_back(answer);
    }

    /// What was asked so far, head and body.
    pub(super) fn requests(&self) -> Vec<String> {
        self.heard.lock().unwrap().requests.clone()
    }
}

async fn serve(mut stream: TcpStream, heard: Arc<Mutex<Heard>>) {
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.ends_with("Version=2011-06-15") {
        match stream.read(&mut bytes).await {
            Ok(read @ 1..) => text.push_str(&String::from_utf8_lossy(&bytes[..read])),
            _ => return,
        }
    }
    let answer = {
        let mut heard = heard.lock().unwrap();
        heard.requests.push(text);
        heard.answers.pop_front()
    };
    if let Some(Answer::Reply(status, body)) = answer {
        let length = body.len();
        let reply = format!("HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\n\r\n{body}");
        let _ = stream.write_all(reply.as_bytes()).await;
    }
}
