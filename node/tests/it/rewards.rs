//! The rewards programme with as many members as the teaching data set it is shaped like.

use proffer_node::demo::coffee;
use serde_json::Value;

use crate::process::Node;

const MEMBERS: usize = 17_000;
const ASKED: usize = 1_000;

#[tokio::test]
async fn rules_over_income_age_and_membership_hold_for_every_member_asked() {
    let node = Node::start(None);
    let client = node.client();
    let members: Vec<Value> = (0..MEMBERS).map(|number| coffee::member(7, number)).collect();
    coffee::load(&client, &members).await.expect("catalogue and members load");
    let mut proposed = 0;
    for member in members.iter().step_by(MEMBERS / ASKED) {
        let attribute = |name: &str| member["attributes"][name].as_f64();
        let answer = client
            .post("/recommend", &coffee::request(member["customerId"].as_str().expect("an id"), "web"))
            .await
            .expect("answered");
        for decision in answer["decisions"].as_array().expect("decisions") {
            proposed += 1;
            match decision["offerName"].as_str().expect("named") {
                "5 off a bag of beans" => assert!(attribute("income") >= Some(50_000.0), "{member}"),
                "Weekend brunch for two" => {
                    assert!(attribute("age") < Some(118.0) && attribute("membershipYears") >= Some(2.0), "{member}");
                }
                "Double espresso, second one free" | "New shop in your quarter" => panic!("has no creative on web"),
                _ => {}
            }
            assert_ne!(decision["personalization"]["headline"], Value::Null, "{decision}");
        }
    }
    assert!(proposed >= 2 * ASKED, "{proposed} propositions");
}
