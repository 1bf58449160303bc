//! Join tokens, without what they prove: neither the secret nor its hash is ever sent.

use std::{borrow::Cow, sync::Arc};

use jiff::Timestamp;
use tidegate_core::{
    access::kinds,
    predicate::{Fields, Schema},
};
use tidegate_proto::v1::{self, resource::Body};

use super::kind::{Hosts, Kind, Record, Rights, instant, moment, present, searched, texts};
use crate::{access, keys, store::Entry};

/// `token`.
pub(super) struct Tokens;

impl Kind for Tokens {
    fn name(&self) -> &'static str {
        kinds::TOKEN
    }

    fn rights(&self) -> Rights {
        Rights {
            rule: Some(kinds::TOKEN),
            hosts: Hosts::Of(&[]),
        }
    }

    fn schema(&self) -> &'static Schema {
        &Schema::TOKEN
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &[keys::TOKENS]
    }

    fn read(&self, entries: &[Entry]) -> Option<Arc<dyn Record>> {
        let entry = entries.first()?;
        let message = access::shown_token(entry)?;
        Some(Arc::new(Token {
            message,
            tie: entry.created.to_string(),
        }))
    }
}

/// A token of the configuration file.
pub(super) fn fixed(message: v1::Token) -> Arc<dyn Record> {
    Arc::new(Token {
        message,
        tie: String::new(),
    })
}

struct Token {
    message: v1::Token,
    /// Two tokens may have one id, which is the beginning of a hash.
    tie: String,
}

impl Record for Token {
    fn name(&self) -> &str {
        &self.message.id
    }

    fn tie(&self) -> &str {
        &self.tie
    }

    fn body(&self) -> Body {
        Body::Token(self.message.clone())
    }

    fn ends_at(&self) -> Option<Timestamp> {
        moment(self.message.expires_at.as_ref())
    }
}

impl Fields for Token {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        let token = &self.message;
        present(match path {
            "name" => &token.id,
            "join_method" if token.join_method.is_empty() => "token",
            "join_method" => &token.join_method,
            "created_by" => &token.created_by,
            "max_uses" => return Some(token.max_uses.to_string().into()),
            "uses" => return Some(token.uses.to_string().into()),
            "created_at" => return instant(token.created_at.as_ref()),
            "expires_at" => return instant(token.expires_at.as_ref()),
            _ => return None,
        })
    }

    fn list(&self, path: &str) -> Vec<Cow<'_, str>> {
        match path {
            "types" => texts(&self.message.types),
            _ => Vec::new(),
        }
    }

    fn flag(&self, path: &str) -> bool {
        path == "is_static" && self.message.is_static
    }

    fn any_searched(&self, found: &mut dyn FnMut(&str) -> bool) -> bool {
        searched(self, &Schema::TOKEN, found)
    }
}
