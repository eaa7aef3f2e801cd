//! Who may call what: the one table of routes. A route that is not in it is not served, and one that is in it but has no
//! handler keeps the router from starting.

use axum::http::Method;
use proffer_engine::catalog::Role;

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: no key, no tenant.
    Open,
    /// A key that has one of these roles.
    Roles(&'static [Role]),
}

/// How much a route may read and how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// A body up to 1 MiB, the ordinary time limit.
    Ordinary,
    /// A body up to 32 MiB and a longer time.
    Bulk,
}

/// Which node can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Any: what it needs is known everywhere, or fetched.
    Anywhere,
    /// The one that leads the shard of the customer whom the call is about.
    Customer(Repeat),
}

/// Whether a call may be made once more when it is not known whether it was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It changes nothing.
    Read,
    /// Twice is as good as once.
    Harmless,
    /// Only under an idempotency key: without one it would take units twice.
    Keyed,
}

/// One route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Method.
    pub method: &'static str,
    /// Path pattern, as axum writes it.
    pub path: &'static str,
    /// Who may.
    pub access: Access,
    /// How much.
    pub weight: Weight,
    /// Whether it honours `If-Match`. Others refuse the header: one that is ignored guards nothing.
    pub conditional: bool,
    /// Where it is answered.
    pub home: Home,
    /// Whether it writes the catalogue: `?wait=all` is answered when the write is in force on every node.
    pub authors: bool,
}

/// Deciding and answering.
const CHANNEL: Access = Access::Roles(&[Role::Channel, Role::Admin]);
/// Reading what is authored.
const READ: Access = Access::Roles(&[Role::Viewer, Role::Editor, Role::Admin]);
/// Writing what is authored (mandatory offers need more: the catalogue says so).
const WRITE: Access = Access::Roles(&[Role::Editor, Role::Admin]);
/// Writing rows and profiles in bulk.
const LOAD: Access = Access::Roles(&[Role::Channel, Role::Editor, Role::Admin]);
/// Deciding for many, which lists customers: what is done for each asks for roles of its own.
const BATCH: Access = Access::Roles(&[Role::Channel, Role::Editor, Role::Admin]);
/// What decisions read, profiles with it: whoever may read those, and no viewer.
const TRACES: Access = CHANNEL;
/// The tenant as a whole, and the cluster.
const ADMIN: Access = Access::Roles(&[Role::Admin]);

const fn route(method: &'static str, path: &'static str, access: Access) -> Route {
    Route { method, path, access, weight: Weight::Ordinary, conditional: false, home: Home::Anywhere, authors: false }
}

/// A write of what is authored.
const fn write(method: &'static str, path: &'static str, access: Access) -> Route {
    Route { authors: true, ..route(method, path, access) }
}

/// A call about one customer.
const fn customer(method: &'static str, path: &'static str, access: Access, repeat: Repeat) -> Route {
    Route { home: Home::Customer(repeat), ..route(method, path, access) }
}

/// An update that honours `If-Match`.
const fn update(path: &'static str) -> Route {
    Route { conditional: true, ..write("PUT", path, WRITE) }
}

const fn bulk(method: &'static str, path: &'static str, access: Access) -> Route {
    Route { weight: Weight::Bulk, ..route(method, path, access) }
}

macro_rules! table {
    ($($kind:literal),+ ; $($other:expr,)+) => {
        /// Every route there is.
        pub const ROUTES: &[Route] = &[
            $(
                route("GET", concat!("/api/v1/", $kind), READ),
                write("POST", concat!("/api/v1/", $kind), WRITE),
                update(concat!("/api/v1/", $kind)),
                write("DELETE", concat!("/api/v1/", $kind), WRITE),
                route("GET", concat!("/api/v1/", $kind, "/{id}"), READ),
                update(concat!("/api/v1/", $kind, "/{id}")),
                write("DELETE", concat!("/api/v1/", $kind, "/{id}"), WRITE),
            )+
            $($other,)+
        ];
    };
}

table! {
    "categories", "offers", "creatives", "channels", "placements", "collections", "activities", "qualification-rules",
    "contact-policies", "schemas", "decision-flows", "guardrails", "behavioral-metrics", "algorithm-models";
    route("GET", "/livez", Access::Open),
    route("GET", "/readyz", Access::Open),
    route("GET", "/api/v1/categories/{id}/sub-categories", READ),
    write("POST", "/api/v1/categories/{id}/sub-categories", WRITE),
    update("/api/v1/categories/{id}/sub-categories"),
    write("DELETE", "/api/v1/categories/{id}/sub-categories", WRITE),
    route("GET", "/api/v1/categories/{id}/sub-categories/{subId}", READ),
    update("/api/v1/categories/{id}/sub-categories/{subId}"),
    write("DELETE", "/api/v1/categories/{id}/sub-categories/{subId}", WRITE),
    route("GET", "/api/v1/offers/{id}/budget", READ),
    route("GET", "/api/v1/offers/{id}/propensity", READ),
    route("GET", "/api/v1/experiments/{key}/results", READ),
    bulk("POST", "/api/v1/schemas/{id}/rows", LOAD),
    write("POST", "/api/v1/decision-flows/publish", WRITE),
    write("POST", "/api/v1/decision-flows/{id}/publish", WRITE),
    route("GET", "/api/v1/decision-flows/{id}/versions", READ),
    route("GET", "/api/v1/decision-flows/{id}/diff", READ),
    write("POST", "/api/v1/decision-flows/{id}/rollback", WRITE),
    route("GET", "/api/v1/settings", READ),
    write("PUT", "/api/v1/settings", ADMIN),
    route("GET", "/api/v1/tags", READ),
    customer("POST", "/api/v1/recommend", CHANNEL, Repeat::Keyed),
    customer("POST", "/api/v1/decisions", CHANNEL, Repeat::Keyed),
    customer("POST", "/api/v1/adobe/decisions", CHANNEL, Repeat::Keyed),
    customer("POST", "/api/v1/respond", CHANNEL, Repeat::Harmless),
    customer("POST", "/api/v1/release", CHANNEL, Repeat::Harmless),
    customer("POST", "/api/v1/events", CHANNEL, Repeat::Harmless),
    customer("POST", "/api/v1/simulate", READ, Repeat::Read),
    route("POST", "/api/v1/batch-decisions", BATCH),
    customer("GET", "/api/v1/why-not", READ, Repeat::Read),
    bulk("POST", "/api/v1/replay", READ),
    bulk("POST", "/api/v1/what-if", READ),
    route("GET", "/api/v1/traces", TRACES),
    route("GET", "/api/v1/traces/{id}", TRACES),
    customer("GET", "/api/v1/profiles/{customerId}", CHANNEL, Repeat::Read),
    customer("PUT", "/api/v1/profiles/{customerId}", CHANNEL, Repeat::Harmless),
    customer("DELETE", "/api/v1/profiles/{customerId}", CHANNEL, Repeat::Harmless),
    customer("DELETE", "/api/v1/profiles/{customerId}/opt-outs", CHANNEL, Repeat::Harmless),
    Route { authors: true, ..bulk("POST", "/api/v1/import", LOAD) },
    Route { authors: true, ..bulk("POST", "/api/v1/import/{kind}", LOAD) },
    route("GET", "/cluster/status", READ),
    route("GET", "/cluster/shards", READ),
    route("GET", "/cluster/locate", READ),
    route("POST", "/cluster/nodes/{node}/drain", ADMIN),
    route("POST", "/cluster/nodes/{node}/undrain", ADMIN),
    route("POST", "/cluster/nodes/{node}/remove", ADMIN),
    route("POST", "/cluster/shards/{shard}/transfer", ADMIN),
    route("POST", "/cluster/shards/{shard}/recover", ADMIN),
    route("POST", "/cluster/rebalance", ADMIN),
}

/// The table's row for a route.
pub fn find(method: &Method, path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.method == method.as_str() && route.path == path)
}

/// Whether `roles` satisfy `access`.
pub fn allows(access: Access, roles: &[Role]) -> bool {
    match access {
        Access::Open => true,
        Access::Roles(any) => roles.iter().any(|role| any.contains(role)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_route_is_declared_twice() {
        for (index, route) in ROUTES.iter().enumerate() {
            let again =
                ROUTES[index + 1..].iter().any(|other| (other.method, other.path) == (route.method, route.path));
            assert!(!again, "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn only_probes_are_open() {
        let open: Vec<_> = ROUTES.iter().filter(|route| route.access == Access::Open).map(|route| route.path).collect();
        assert_eq!(open, ["/livez", "/readyz"]);
    }

    #[test]
    fn a_channel_key_neither_reads_nor_writes_what_is_authored() {
        for route in ROUTES.iter().filter(|route| route.path.starts_with("/api/v1/offers")) {
            assert!(!allows(route.access, &[Role::Channel]), "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn whatever_an_editor_may_write_can_be_waited_for() {
        let written = ROUTES.iter().filter(|route| route.method != "GET" && route.access == WRITE);
        let (mut count, mut waited) = (0, 0);
        for route in written {
            count += 1;
            waited += usize::from(route.authors);
        }
        assert_eq!((count, waited), (5 * 14 + 5 + 3, count));
        assert!(ROUTES.iter().all(|route| !(route.authors && route.method == "GET")));
    }

    #[test]
    fn a_viewer_changes_nothing() {
        let mut allowed = ROUTES.iter().filter(|route| route.method != "GET" && allows(route.access, &[Role::Viewer]));
        assert_eq!(allowed.next().map(|route| route.path), Some("/api/v1/simulate"), "a dry run");
        assert_eq!(allowed.next().map(|route| route.path), Some("/api/v1/replay"), "what was decided, again");
        assert_eq!(allowed.next().map(|route| route.path), Some("/api/v1/what-if"), "and what would be");
        assert_eq!(allowed.next(), None);
    }
}
