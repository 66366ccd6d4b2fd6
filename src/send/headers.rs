//! The headers that say of a record which line of which file it is.
//!
//! It writes them; `verify` reads them.

use std::sync::Arc;

use crate::kafka::{EncodedHeaders, Headers};
use crate::ledger::Origin;

use super::format::push_number;

/// Makes headers for the lines of one file after the other; what does not change
/// from line to line is encoded once.
#[derive(Debug)]
pub struct OriginHeaders {
    host: Arc<str>,
    prepared: Option<(Origin, LineHeaders)>,
}

/// Headers for the lines of one file.
#[derive(Debug)]
pub struct LineHeaders {
    headers: Headers,
    offset: Vec<u8>,
}

impl OriginHeaders {
    /// Headers for lines of this host.
    pub fn new(host: Arc<str>) -> OriginHeaders {
        OriginHeaders {
            host,
            prepared: None,
        }
    }

    /// Those of the lines of a file.
    pub fn of(&mut self, origin: &Origin) -> &mut LineHeaders {
        if self.prepared.as_ref().is_none_or(|(of, _)| of != origin) {
            self.prepared = Some((origin.clone(), LineHeaders::new(origin, &self.host)));
        }
        let (_, headers) = self.prepared.as_mut().expect("just prepared");
        headers
    }
}

impl LineHeaders {
    fn new(origin: &Origin, host: &str) -> LineHeaders {
        let numbers = [origin.device, origin.inode, origin.generation];
        let [device, inode, generation] = numbers.map(|number| number.to_string());
        let fixed = [
            ("path", origin.path.as_os_str().as_encoded_bytes()),
            ("host", host.as_bytes()),
            ("device", device.as_bytes()),
            ("inode", inode.as_bytes()),
            ("generation", generation.as_bytes()),
        ];
        LineHeaders {
            headers: Headers::new(&fixed, "offset"),
            offset: Vec::new(),
        }
    }

    /// Those of the line that begins at this byte of the file.
    pub fn at(&mut self, offset: u64) -> EncodedHeaders<'_> {
        self.offset.clear();
        push_number(offset, &mut self.offset);
        self.headers.with_last(&self.offset)
    }
}
