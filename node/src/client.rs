//! A small HTTP client for the command line: JSON in, JSON out, problem documents as errors.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// Where a node listens and how to be let in.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// Base URL of any node.
    #[arg(long, env = "PROFFER_URL", default_value = "http://127.0.0.1:7070", global = true)]
    pub url: String,
    /// API key.
    #[arg(long, env = "PROFFER_KEY", default_value = "proffer-dev-key", hide_default_value = true, global = true)]
    pub key: String,
    /// Tenant; must match the key.
    #[arg(long, env = "PROFFER_TENANT", default_value = "default", global = true)]
    pub tenant: String,
}

/// A connection pool to one node.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    target: Target,
}

/// An answer that was no success: status and, where the body was one, the problem document.
#[derive(Debug, thiserror::Error)]
#[error("{status}: {}", .problem["detail"].as_str().or(.problem["title"].as_str()).unwrap_or("no problem document"))]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// RFC 9457 document, or null.
    pub problem: Value,
}

impl Problem {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.problem["retryable"] == true
    }

    /// Whether the call may have taken effect all the same.
    pub fn is_in_doubt(&self) -> bool {
        self.problem["outcome"] == "unknown"
    }

    /// The faults of one body, each as `pointer: detail`.
    pub fn faults(&self) -> Vec<String> {
        listed(&self.problem["errors"])
    }

    /// The faults of a bulk body by line.
    pub fn line_faults(&self) -> Vec<LineFault> {
        let lines = self.problem["lines"].as_array().into_iter().flatten();
        lines
            .flat_map(|bad| {
                let line = bad["line"].as_u64().unwrap_or(1) as usize;
                let kind = bad["kind"].as_str().map(str::to_owned);
                listed(&bad["errors"]).into_iter().map(move |fault| LineFault { kind: kind.clone(), line, fault })
            })
            .collect()
    }
}

/// What is wrong with a line of a bulk body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFault {
    /// Of a body of several kinds: which.
    pub kind: Option<String>,
    /// From 1.
    pub line: usize,
    /// As `pointer: detail`.
    pub fault: String,
}

fn listed(errors: &Value) -> Vec<String> {
    let one = |fault: &Value| {
        let pointer = fault["pointer"].as_str().unwrap_or_default();
        let detail = fault["detail"].as_str().unwrap_or_default();
        if pointer.is_empty() { detail.to_owned() } else { format!("{pointer}: {detail}") }
    };
    errors.as_array().into_iter().flatten().map(one).collect()
}

impl Client {
    /// A client for `target`; connects lazily.
    ///
    /// # Errors
    /// If the TLS-less HTTP client cannot be built.
    pub fn new(target: Target) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).no_proxy().build()?;
        Ok(Client { http, target })
    }

    /// The node this client talks to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// `POST` of a JSON body under `/api/v1`.
    ///
    /// # Errors
    /// [`Problem`] when the node refuses, a transport error when it cannot be reached.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::POST, path, "application/json", serde_json::to_vec(body)?, &[]).await
    }

    /// `PUT` of a JSON body under `/api/v1`.
    ///
    /// # Errors
    /// As [`Client::post`].
    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::PUT, path, "application/json", serde_json::to_vec(body)?, &[]).await
    }

    /// `GET` under `/api/v1`.
    ///
    /// # Errors
    /// As [`Client::post`].
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, path, "application/json", Vec::new(), &[]).await
    }

    /// A call with a JSON body (null: none) to a path from the root.
    ///
    /// # Errors
    /// As [`Client::post`].
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        self.send_to(method, path, "application/json", body, &[]).await
    }

    /// One call under `/api/v1` with every part given.
    ///
    /// # Errors
    /// As [`Client::post`].
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Value> {
        self.send_to(method, &format!("/api/v1{path}"), content_type, body, headers).await
    }

    async fn send_to(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.target.url.trim_end_matches('/'));
        let mut request = self
            .http
            .request(method, &url)
            .header("X-API-Key", &self.target.key)
            .header("X-Tenant-Id", &self.target.tenant)
            .header("Content-Type", content_type)
            .body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.with_context(|| format!("cannot reach {url}"))?;
        let status = response.status();
        let bytes = response.bytes().await.with_context(|| format!("connection to {url} broke"))?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() { Ok(body) } else { Err(Problem { status, problem: body }.into()) }
    }

    /// Waits until the node answers `/readyz` with 200.
    ///
    /// # Errors
    /// When it has not within `patience`.
    pub async fn wait_ready(&self, patience: Duration) -> anyhow::Result<()> {
        let url = format!("{}/readyz", self.target.url.trim_end_matches('/'));
        let deadline = tokio::time::Instant::now() + patience;
        while tokio::time::Instant::now() < deadline {
            if let Ok(answer) = self.http.get(&url).send().await
                && answer.status().is_success()
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("{url} did not become ready within {patience:?}")
    }
}
