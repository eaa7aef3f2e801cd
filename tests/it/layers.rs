//! Layers point one way, and each outside library has one home: read from `cargo metadata` and the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds this crate").to_owned()
}

/// Normal dependencies of each of our crates.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec().expect("cargo metadata runs");
    let normal = |package: &cargo_metadata::Package| {
        let normal = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
        normal.map(|dependency| dependency.name.clone()).collect()
    };
    metadata.packages.iter().map(|package| (package.name.to_string(), normal(package))).collect()
}

#[test]
fn arrows_point_from_node_through_api_and_cluster_to_engine() {
    let allowed = BTreeMap::from([
        ("proffer-engine", vec![]),
        ("proffer-cluster", vec!["proffer-engine"]),
        ("proffer-api", vec!["proffer-cluster", "proffer-engine"]),
        ("proffer-node", vec!["proffer-api", "proffer-cluster", "proffer-engine"]),
        ("proffer-chaos", vec![]),
        ("proffer-fuzz", vec![]),
        ("proffer-model", vec!["proffer-cluster", "proffer-engine"]),
        ("proffer-tests", vec!["proffer-api", "proffer-chaos", "proffer-cluster", "proffer-engine", "proffer-node"]),
    ]);
    for (name, dependencies) in dependencies() {
        let ours: Vec<&String> = dependencies.iter().filter(|name| name.starts_with("proffer-")).collect();
        let allowed = allowed.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no place in the layers"));
        assert!(ours.iter().all(|dependency| allowed.contains(&dependency.as_str())), "{name} depends on {ours:?}");
    }
}

#[test]
fn the_engine_is_pure() {
    let engine = &dependencies()["proffer-engine"];
    for impure in ["tokio", "ractor", "axum", "serde", "serde_json", "getrandom", "rand", "tracing", "arc-swap"] {
        assert!(!engine.contains(impure), "engine depends on {impure}");
    }
    for word in [
        "std::fs",
        "std::net",
        "std::env",
        "std::thread",
        "SystemTime",
        "std::time::Instant",
        "std::collections::HashMap",
    ] {
        assert_eq!(sources_naming("engine/src", word), BTreeSet::new(), "engine names {word}");
    }
}

#[test]
fn only_the_actors_name_ractor() {
    let homes = sources_naming("cluster/src", "ractor::");
    assert!(homes.iter().all(|file| file.starts_with("cluster/src/actors")), "{homes:?}");
    for layer in ["api/src", "node/src", "engine/src"] {
        assert_eq!(sources_naming(layer, "ractor"), BTreeSet::new());
    }
}

#[test]
fn only_the_raft_module_names_openraft() {
    let homes = sources_naming("cluster/src", "openraft");
    assert!(homes.iter().all(|file| file.starts_with("cluster/src/raft")), "{homes:?}");
    for layer in ["api/src", "node/src", "engine/src"] {
        assert_eq!(sources_naming(layer, "openraft"), BTreeSet::new());
    }
}

#[test]
fn the_cluster_opens_no_sockets_and_no_files() {
    for word in ["std::fs", "std::net", "tokio::net", "tokio::fs", "SystemTime::now", "std::time::Instant"] {
        assert_eq!(sources_naming("cluster/src", word), BTreeSet::new(), "cluster names {word}");
    }
}

#[test]
fn the_binary_format_has_one_home() {
    let callers = ["bincode::encode", "bincode::decode_from", "bincode::config"];
    let homes: BTreeSet<String> = callers
        .iter()
        .flat_map(|word| ["engine/src", "cluster/src", "api/src", "node/src"].map(|layer| sources_naming(layer, word)))
        .flatten()
        .collect();
    assert_eq!(homes, BTreeSet::from(["engine/src/codec.rs".to_owned()]));
}

#[test]
fn serde_lives_at_the_edges() {
    for layer in ["engine/src", "cluster/src"] {
        assert_eq!(sources_naming(layer, "serde"), BTreeSet::new());
    }
}

/// Source files under `folder` that contain `word` outside comments.
fn sources_naming(folder: &str, word: &str) -> BTreeSet<String> {
    let root = root();
    let mut found = BTreeSet::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                // Tests beside the code may read their tables with whatever suits.
                if !path.ends_with("tests") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("sources are text");
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                if code.into_iter().any(|line| line.contains(word)) {
                    found.insert(path.strip_prefix(&root).expect("below the root").display().to_string());
                }
            }
        }
    }
    found
}
