//! Plain calls: read, write and delete keys.
//!
//! A call asks one endpoint after the other until one answers, beginning with
//! the one that answered last. It does not wait and try again.

use super::content::{self, Content, Range, Value, Values};
use super::failure::{EtcdError, Failure, Step};
use super::gateway::{ANSWER_BYTES_MAX, Gateway};
use super::options::Options;
use super::wire::{
    Answer, Bytes, Compare, DeleteRequest, Number, Operation, PutRequest, TransactionAnswer,
    TransactionRequest,
};

/// Asks etcd one thing at a time.
pub struct Client {
    options: Options,
    current: usize,
    gateway: Option<Gateway>,
}

impl Client {
    /// Gets ready; nothing is sent yet.
    pub fn new(options: Options) -> Client {
        Client {
            options,
            current: 0,
            gateway: None,
        }
    }

    /// The value of a key, if it has one.
    ///
    /// # Errors
    /// No endpoint answers, etcd refuses, or the value is larger than
    /// [`Options::value_bytes_max`].
    pub fn get(&mut self, key: &str) -> Result<Option<Value>, EtcdError> {
        let content = self.read(&Range::Key(key.to_owned()))?;
        Ok(content.into_iter().next())
    }

    /// Every key that begins with `prefix`, in order.
    ///
    /// # Errors
    /// Those of [`Client::get`], or there is too much.
    pub fn list(&mut self, prefix: &str) -> Result<Vec<Value>, EtcdError> {
        self.read(&Range::Below(prefix.to_owned()))
    }

    /// Writes a value. The revision that did it.
    ///
    /// # Errors
    /// No endpoint answers, or etcd refuses.
    pub fn put(&mut self, key: &str, bytes: &[u8]) -> Result<i64, EtcdError> {
        let request = PutRequest {
            key: Bytes(key.as_bytes().to_vec()),
            value: Bytes(bytes.to_vec()),
        };
        self.write(Step::Put, "/kv/put", &request)
    }

    /// Writes a value if the key was last written at `mod_revision`; zero means
    /// that there is no such key. The revision that did it, or `None` when it is
    /// not so and nothing was written. That is also the answer of a second
    /// endpoint where the first has written it and its answer was lost.
    ///
    /// # Errors
    /// No endpoint answers, or etcd refuses.
    pub fn put_if(
        &mut self,
        key: &str,
        bytes: &[u8],
        mod_revision: i64,
    ) -> Result<Option<i64>, EtcdError> {
        let key = Bytes(key.as_bytes().to_vec());
        let request_put = PutRequest {
            key: key.clone(),
            value: Bytes(bytes.to_vec()),
        };
        let request = TransactionRequest {
            compare: [Compare {
                key,
                result: "EQUAL",
                target: "MOD",
                mod_revision: Number(mod_revision),
            }],
            success: [Operation { request_put }],
        };
        let answer: TransactionAnswer = self.call(Step::Put, "/kv/txn", &request)?;
        Ok(answer.succeeded.then_some(answer.header.revision.0))
    }

    /// Deletes a key, if it is there. The revision after it.
    ///
    /// # Errors
    /// No endpoint answers, or etcd refuses.
    pub fn delete(&mut self, key: &str) -> Result<i64, EtcdError> {
        let request = DeleteRequest {
            key: Bytes(key.as_bytes().to_vec()),
        };
        self.write(Step::Delete, "/kv/deleterange", &request)
    }

    fn read(&mut self, range: &Range) -> Result<Vec<Value>, EtcdError> {
        let bytes_max = self.options.value_bytes_max;
        self.ask(|gateway| {
            let known = Values::default();
            let Content { values, .. } = content::read(gateway, range, bytes_max, &known)?;
            let Values { loaded, too_large } = values?;
            match too_large.into_iter().next() {
                Some(too_large) => Err(too_large.into_failure(gateway)),
                None => Ok(loaded),
            }
        })
    }

    fn write(
        &mut self,
        step: Step,
        path: &str,
        request: &impl serde::Serialize,
    ) -> Result<i64, EtcdError> {
        let answer: Answer = self.call(step, path, request)?;
        Ok(answer.header.revision.0)
    }

    fn call<T: serde::de::DeserializeOwned>(
        &mut self,
        step: Step,
        path: &str,
        request: &impl serde::Serialize,
    ) -> Result<T, EtcdError> {
        self.ask(|gateway| {
            let answer = gateway.call(step, path, request, ANSWER_BYTES_MAX)?;
            answer.map_err(|_| Failure::garbled(gateway.endpoint(), step, "it is too long"))
        })
    }

    /// One endpoint after the other, until one answers or all have failed.
    fn ask<T>(
        &mut self,
        mut call: impl FnMut(&mut Gateway) -> Result<T, Failure>,
    ) -> Result<T, EtcdError> {
        let mut failures = Vec::new();
        for _ in 0..self.options.endpoints.len() {
            let failure = match self.gateway().and_then(&mut call) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if failure.is_general() {
                return Err(EtcdError(vec![failure]));
            }
            failures.push(failure);
            self.gateway = None;
            self.current = (self.current + 1) % self.options.endpoints.len();
        }
        Err(EtcdError(failures))
    }

    fn gateway(&mut self) -> Result<&mut Gateway, Failure> {
        let gateway = match self.gateway.take() {
            Some(gateway) => gateway,
            None => Gateway::open(&self.options.endpoints[self.current], &self.options)?,
        };
        Ok(self.gateway.insert(gateway))
    }
}
