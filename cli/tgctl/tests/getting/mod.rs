//! `tgctl get` with a question.

use super::*;

fn user(cluster: &Cluster, name: &str) {
    let user = v1::User {
        name: name.to_owned(),
        roles: vec!["access".to_owned()],
        ..v1::User::default()
    };
    cluster.fake.state().users.insert(name.to_owned(), user);
}

#[tokio::test]
async fn a_question_is_answered_page_by_page_in_its_order_up_to_its_limit() {
    let cluster = Cluster::new();
    for name in ["a", "b", "c", "d"] {
        user(&cluster, name);
    }
    let names = async |arguments: &[&str]| {
        let text = cluster
            .prints(&[&["get", "user", "--format=json"], arguments].concat())
            .await;
        let users: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let name = |user: &serde_json::Value| user["metadata"]["name"].as_str().unwrap().to_owned();
        users.iter().map(name).collect::<String>()
    };
    assert_eq!(names(&["--sort=name:desc"]).await, "dcba");
    assert_eq!(names(&["--sort=name:desc", "--limit=3"]).await, "dcb");
    assert_eq!(names(&["--query=name != \"b\""]).await, "acd");
}

#[tokio::test]
async fn what_is_up_is_shown_and_one_of_it_by_its_name() {
    let cluster = Cluster::new();
    let table = cluster.prints(&["get", "instances", "--format=text"]).await;
    assert!(table.contains("node  h1       db"), "{table}");
    let yaml = cluster.prints(&["get", "instance/h1"]).await;
    assert!(
        yaml.contains("kind: instance") && yaml.contains("databases: 2"),
        "{yaml}"
    );
    let (code, errors) = cluster.fails(&["get", "instance/h2"]).await;
    assert_eq!(code, 1);
    assert!(errors.contains("no instance `h2`"), "{errors}");
}

#[tokio::test]
async fn a_watch_is_a_line_an_event() {
    let cluster = Cluster::new();
    let text = cluster
        .prints(&["get", "instance", "--watch", "--format=json"])
        .await;
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told = |line: &serde_json::Value| (line["event"].clone(), line["name"].clone());
    let told: Vec<_> = lines.iter().map(told).collect();
    assert_eq!(
        told,
        [
            ("upserted".into(), "h1".into()),
            ("deleted".into(), "gone".into())
        ]
    );
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_anything_is_asked() {
    let cluster = Cluster::new();
    for (arguments, problem) in [
        (vec!["get", "user/a", "--limit=1"], "exclude each other"),
        (
            vec!["get", "user", "--query=nmae == \"x\""],
            "did you mean `name`",
        ),
        (
            vec!["get", "user", "--watch", "--limit=1"],
            "cannot be used with",
        ),
        (vec!["get", "user", "--limit=0"], "0"),
    ] {
        let (code, errors) = cluster.fails(&arguments).await;
        assert_eq!(code, 2, "{errors}");
        assert!(errors.contains(problem), "{errors}");
    }
}
