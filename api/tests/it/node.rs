//! A node in memory with one tenant and a key for each role.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use proffer_api::forwarding::ways::Ways;
use proffer_api::recommendation::{TokenKey, TokenKeys};
use proffer_api::{Config, router, router_with_ways};
use proffer_cluster::group::Group;
use proffer_cluster::log::Durability;
use proffer_cluster::ports::clock::ManualClock;
use proffer_cluster::ports::entropy::SeededEntropy;
use proffer_cluster::ports::fatal::RecordedFatal;
use proffer_cluster::ports::memory_disk::MemoryDisk;
use proffer_cluster::ports::memory_network::MemoryNetwork;
use proffer_cluster::ports::offload::InlineOffload;
use proffer_cluster::{Handle, Ports, start};
use proffer_engine::catalog::{Actor, Command, CommandV1, Op, Role};
use proffer_engine::keys::{ShardId, TenantId};
use proffer_engine::time::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tower::ServiceExt;

/// Noon of a Monday.
pub const NOON: Timestamp = Timestamp(1_780_315_200_000);

/// A node with its router.
pub struct Node {
    pub router: Router,
    pub clock: Arc<ManualClock>,
    handle: Handle,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}")).to_str().unwrap()
    }

    /// Pointers of the faults.
    pub fn pointers(&self) -> Vec<String> {
        let errors = self.json()["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
    }
}

pub fn key_of(role: Role) -> String {
    format!("{}-key", role.as_str())
}

impl Node {
    pub async fn start() -> Node {
        let clock = Arc::new(ManualClock::new(NOON));
        let handle = handle(&clock).await;
        let tenant = TenantId::new("default");
        let actor = Actor { name: "test".to_owned(), admin: true };
        let mut ops = vec![Op::CreateTenant];
        for role in Role::ALL {
            let hash = Sha256::digest(key_of(*role).as_bytes()).into();
            let id = format!("key_{}", role.as_str());
            ops.push(Op::PutApiKey { id, hash, roles: vec![*role], name: role.as_str().to_owned() });
        }
        for op in ops {
            let command = Command::V1(CommandV1 { tenant: tenant.clone(), actor: actor.clone(), at: NOON, op });
            let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
            handle.change(command, deadline).await.unwrap();
        }
        Node { router: router(handle.clone(), config(&clock, 5)), clock, handle }
    }

    /// Takes a role's key away.
    pub async fn revoke(&self, role: Role) {
        let actor = Actor { name: "test".to_owned(), admin: true };
        let op = Op::RevokeApiKey { id: format!("key_{}", role.as_str()) };
        let command = CommandV1 { tenant: TenantId::new("default"), actor, at: NOON, op };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        self.handle.change(Command::V1(command), deadline).await.unwrap();
    }

    /// The same node as one that reaches others by `ways`, and waits for so long.
    pub fn with_ways(&self, ways: Arc<dyn Ways>, request_timeout: Duration) -> Node {
        let config = Config { request_timeout, ..config(&self.clock, 6) };
        let (clock, handle) = (Arc::clone(&self.clock), self.handle.clone());
        Node { router: router_with_ways(handle.clone(), ways, config), clock, handle }
    }

    /// Ends what is behind the router.
    pub async fn stop(&self) {
        self.handle.shutdown().await;
    }

    /// All that shards and catalogue hold, as they store it.
    pub async fn stored(&self) -> Vec<Vec<Vec<u8>>> {
        let mut stored = Vec::new();
        for shard in 0..2 {
            let found = self.handle.examine(Group::Shard(ShardId(shard))).await;
            stored.push(found.unwrap().pieces);
        }
        stored.push(self.handle.examine(Group::Meta).await.unwrap().pieces);
        stored
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        Reply { status: parts.status, headers: parts.headers, bytes }
    }

    pub async fn call_as(&self, role: Role, method: &str, path: &str, body: &str) -> Reply {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("X-API-Key", key_of(role))
            .header("X-Tenant-Id", "default")
            .header("Content-Type", "application/json");
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub async fn call(&self, method: &str, path: &str, body: &str) -> Reply {
        self.call_as(Role::Admin, method, path, body).await
    }

    /// A call that must succeed; its JSON.
    pub async fn ok(&self, method: &str, path: &str, body: &str) -> Value {
        let reply = self.call(method, path, body).await;
        assert!(
            reply.status.is_success(),
            "{method} {path} {body}: {reply:?} {}",
            String::from_utf8_lossy(&reply.bytes)
        );
        if reply.bytes.is_empty() { Value::Null } else { reply.json() }
    }

    /// Creates something; its id.
    pub async fn create(&self, kind: &str, body: &str) -> String {
        self.ok("POST", &format!("/api/v1/{kind}"), body).await["id"].as_str().unwrap().to_owned()
    }
}

fn config(clock: &Arc<ManualClock>, seed: u64) -> Config {
    let keys = TokenKeys::new(TokenKey::new(1, &[7; 32]), Vec::new());
    Config::new(clock.clone(), Arc::new(SeededEntropy::new(seed)), Arc::new(InlineOffload), keys)
}

async fn handle(clock: &Arc<ManualClock>) -> Handle {
    // Actor names are unique in the process, and tests share it.
    static NODES: AtomicU64 = AtomicU64::new(0);
    let number = NODES.fetch_add(1, Ordering::Relaxed);
    let config = proffer_cluster::Config {
        durability: Durability::Memory,
        ..proffer_cluster::Config::founding(&format!("n{number}"), 2)
    };
    let ports = Ports {
        disk: Arc::new(MemoryDisk::new()),
        offload: Arc::new(InlineOffload),
        clock: clock.clone(),
        entropy: Arc::new(SeededEntropy::new(number)),
        network: Arc::new(MemoryNetwork::new().host("here")),
        fatal: Arc::new(RecordedFatal::default()),
    };
    let handle = start(config, ports).await.unwrap();
    while !handle.status().ready {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    handle
}
