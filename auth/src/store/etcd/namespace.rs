//! Where our keys are in etcd: everything under one prefix, which callers never see.
//!
//! Below `<prefix>/`: `data` followed by the caller's key, and `meta/…` for what the store itself needs. One watch
//! over all of `<prefix>/` therefore sees every change of ours in one order.

use bytes::{BufMut as _, Bytes, BytesMut};

/// The keys of one store.
#[derive(Clone, Debug)]
pub(super) struct Namespace {
    whole: Bytes,
    data: Bytes,
    format: Bytes,
    bookmark: Bytes,
}

impl Namespace {
    /// Below a prefix, with or without a slash at its end.
    pub(super) fn new(prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/');
        Self {
            whole: Bytes::from(format!("{prefix}/")),
            data: Bytes::from(format!("{prefix}/data")),
            format: Bytes::from(format!("{prefix}/meta/format")),
            bookmark: Bytes::from(format!("{prefix}/meta/bookmark")),
        }
    }

    /// What all keys start with.
    pub(super) const fn whole(&self) -> &Bytes {
        &self.whole
    }

    /// The key that says which format the store has.
    pub(super) const fn format(&self) -> &Bytes {
        &self.format
    }

    /// The key that is written only so that watches are told a revision.
    pub(super) const fn bookmark(&self) -> &Bytes {
        &self.bookmark
    }

    /// A caller's key, or prefix of keys, as etcd has it.
    pub(super) fn data(&self, key: &[u8]) -> Bytes {
        let mut full = BytesMut::with_capacity(self.data.len() + key.len());
        full.put_slice(&self.data);
        full.put_slice(key);
        full.freeze()
    }

    /// The caller's key, if it is one.
    pub(super) fn strip(&self, key: &Bytes) -> Option<Bytes> {
        key.starts_with(&self.data)
            .then(|| key.slice(self.data.len()..))
    }
}

/// The first key after all keys that start with `prefix`; etcd reads a single zero byte as "to the end".
pub(super) fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

/// The first key after `key`.
pub(super) fn successor(key: &Bytes) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_gets_its_own_keys_back_and_no_others() {
        let names = Namespace::new("/tidegate/");
        let full = names.data(b"/roles/a");
        assert_eq!(full, "/tidegate/data/roles/a");
        assert_eq!(names.strip(&full).unwrap(), "/roles/a");
        assert_eq!(names.strip(names.format()), None);
        assert_eq!(names.strip(names.bookmark()), None);
        assert!(names.format().starts_with(names.whole()));
        assert_eq!(Namespace::new("/tidegate").whole(), names.whole());
    }

    #[test]
    fn the_end_of_a_prefix_comes_after_all_its_keys() {
        assert_eq!(prefix_end(b"/a"), "/b");
        assert_eq!(prefix_end(b"a\xff\xff"), "b");
        assert_eq!(prefix_end(b"\xff"), "\0");
        assert_eq!(prefix_end(b""), "\0");
    }
}
