//! Ten thousand real visits over HTTP.

use proffer_node::demo::open_bandit;

use crate::process::Node;

#[tokio::test]
async fn ten_thousand_visits_replay_without_error_repetition_or_cap_overrun() {
    let node = Node::start(None);
    let client = node.client();
    open_bandit::load(&client).await.expect("the catalogue loads");
    let replayed = open_bandit::replay(&client, 10_000, |_| {}).await.expect("every row is answered within its caps");
    assert_eq!(replayed.rows, 10_000);
    assert_eq!(replayed.propositions, 30_000, "34 offers always fill 3 slots");
    // A uniform log over 34 items matches one proposition in 34: 294 of 10,000, standard deviation 17.
    assert!((200..400).contains(&replayed.matches), "{replayed:?}");
    assert!(replayed.clicks <= replayed.matches);
}
