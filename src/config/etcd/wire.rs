//! The gateway's JSON: what is asked and what is answered.
//!
//! protobuf's JSON mapping: bytes are base64, 64-bit integers are texts, and
//! what is zero is left out. Numbers are taken as well where texts are usual.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes, as base64 in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

/// A 64-bit integer, as text in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Number(pub i64);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        Ok(Bytes(bytes))
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(Number(number)),
            Either::Text(text) => text.parse().map(Number).map_err(serde::de::Error::custom),
        }
    }
}

/// `/kv/range`, and where a watch looks.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RangeRequest {
    pub key: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_end: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Number>,
    pub keys_only: bool,
    pub count_only: bool,
}

/// `/kv/put`
#[derive(Debug, Serialize)]
pub struct PutRequest {
    pub key: Bytes,
    pub value: Bytes,
}

/// `/kv/txn`: a put on one condition, the revision that wrote the key last.
#[derive(Debug, Serialize)]
pub struct TransactionRequest {
    pub compare: [Compare; 1],
    pub success: [Operation; 1],
}

#[derive(Debug, Serialize)]
pub struct Compare {
    pub key: Bytes,
    pub result: &'static str,
    pub target: &'static str,
    pub mod_revision: Number,
}

#[derive(Debug, Serialize)]
pub struct Operation {
    pub request_put: PutRequest,
}

/// The answer to a transaction.
#[derive(Debug, Deserialize)]
pub struct TransactionAnswer {
    pub header: Header,
    #[serde(default)]
    pub succeeded: bool,
}

/// `/kv/deleterange`
#[derive(Debug, Serialize)]
pub struct DeleteRequest {
    pub key: Bytes,
}

/// `/watch`
#[derive(Debug, Serialize)]
pub struct WatchRequest {
    pub create_request: CreateRequest,
}

#[derive(Debug, Serialize)]
pub struct CreateRequest {
    pub key: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_end: Option<Bytes>,
    pub start_revision: Number,
    pub progress_notify: bool,
}

/// `/auth/authenticate`
#[derive(Debug, Serialize)]
pub struct LoginRequest<'a> {
    pub name: &'a str,
    pub password: &'a str,
}

#[derive(Debug, Deserialize)]
pub struct LoginAnswer {
    pub token: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Header {
    pub revision: Number,
}

/// The answer to a range, a put or a delete.
#[derive(Debug, Deserialize)]
pub struct Answer {
    pub header: Header,
    #[serde(default)]
    pub kvs: Vec<KeyValue>,
    #[serde(default)]
    pub count: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct KeyValue {
    pub key: Bytes,
    pub mod_revision: Number,
    pub value: Bytes,
}

/// One line of a watch. Values are not decoded: what changed is read anew.
#[derive(Debug, Deserialize)]
pub struct WatchLine {
    #[serde(default)]
    pub result: Option<WatchResult>,
    #[serde(default)]
    pub error: Option<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct WatchResult {
    pub created: bool,
    pub canceled: bool,
    pub compact_revision: Number,
    pub cancel_reason: String,
    pub events: Vec<WatchEvent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct WatchEvent {
    pub kv: Changed,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Changed {
    pub mod_revision: Number,
}

/// `GET /version`
#[derive(Debug, Deserialize)]
pub struct Version {
    pub etcdserver: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_taken_as_text_and_as_numbers_and_zeros_may_be_missing() {
        for text in [
            r#"{"header":{"revision":"5"},"kvs":[{"key":"L2E=","mod_revision":"4"}],"count":"1"}"#,
            r#"{"header": {"revision": 5}, "kvs": [{"key": "L2E=", "mod_revision": 4}], "count": 1}"#,
        ] {
            let answer: Answer = serde_json::from_str(text).unwrap();
            assert_eq!((answer.header.revision.0, answer.count.0), (5, 1));
            assert_eq!(answer.kvs[0].key.0, b"/a");
            assert_eq!(answer.kvs[0].mod_revision.0, 4);
            assert_eq!(answer.kvs[0].value.0, b"");
        }
        let none: Answer = serde_json::from_str(r#"{"header":{"revision":"1"}}"#).unwrap();
        assert!(none.kvs.is_empty() && none.count.0 == 0);
        assert!(serde_json::from_str::<Answer>(r#"{"header":{"revision":"x"}}"#).is_err());
        assert!(serde_json::from_str::<Answer>("{}").is_err());
    }

    #[test]
    fn a_request_is_written_as_the_gateway_reads_it() {
        let request = RangeRequest {
            key: Bytes(b"/a".to_vec()),
            revision: Some(Number(7)),
            ..RangeRequest::default()
        };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"key":"L2E=","revision":"7","keys_only":false,"count_only":false}"#
        );
    }
}
