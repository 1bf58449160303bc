//! Many changes in transactions of a bounded number, and of fewer where those are more bytes than the store takes.

use super::CommitError;

/// Changes to write, handed out a chunk at a time.
#[derive(Debug)]
pub(crate) struct Chunks<'i, T> {
    items: &'i [T],
    /// How many of them were handed out and not given back.
    done: usize,
    size: usize,
}

impl<'i, T> Chunks<'i, T> {
    /// All of `items`, at most so many at a time.
    pub(crate) const fn new(items: &'i [T], size_max: usize) -> Self {
        Self {
            items,
            done: 0,
            size: size_max,
        }
    }

    /// The next chunk, never empty. It counts as written unless it is given back.
    pub(crate) fn next(&mut self) -> Option<&'i [T]> {
        let left = self.items.get(self.done..)?;
        let chunk = left.get(..self.size).unwrap_or(left);
        self.done += chunk.len();
        (!chunk.is_empty()).then_some(chunk)
    }

    /// Takes back a chunk that was refused as a whole. When it was too long its first half comes next, and no later
    /// chunk is larger.
    ///
    /// # Errors
    ///
    /// What it was refused for, when fewer changes at a time do not help.
    pub(crate) fn give_back(&mut self, chunk: &[T], error: CommitError) -> Result<(), CommitError> {
        match error {
            CommitError::TooLong { .. } if chunk.len() > 1 => {
                self.done = self.done.saturating_sub(chunk.len());
                self.size = chunk.len() / 2;
                Ok(())
            }
            other => Err(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn too_long() -> CommitError {
        CommitError::TooLong {
            bytes: 1,
            source: "no".into(),
        }
    }

    /// Writes to a store that takes so many bytes at once; gives what came in which transaction.
    fn write(
        items: &[usize],
        size_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Vec<usize>>, CommitError> {
        let mut chunks = Chunks::new(items, size_max);
        let mut written = Vec::new();
        while let Some(chunk) = chunks.next() {
            if chunk.iter().sum::<usize>() > bytes_max {
                chunks.give_back(chunk, too_long())?;
            } else {
                written.push(chunk.to_vec());
            }
        }
        Ok(written)
    }

    #[test]
    fn all_is_written_once_in_order_in_as_many_transactions_as_it_takes() {
        let items = [1, 1, 1, 4, 1, 1, 1];
        assert_eq!(
            write(&items, 4, 100).unwrap(),
            [vec![1, 1, 1, 4], vec![1, 1, 1]]
        );
        assert_eq!(
            write(&items, 4, 4).unwrap(),
            [vec![1, 1], vec![1], vec![4], vec![1], vec![1], vec![1]]
        );
        assert!(write(&[], 4, 4).unwrap().is_empty());
    }

    #[test]
    fn one_change_that_is_too_long_by_itself_is_an_error_and_so_is_anything_else() {
        assert!(matches!(
            write(&[1, 9], 4, 4),
            Err(CommitError::TooLong { .. })
        ));
        let mut chunks = Chunks::new(&[1, 2], 2);
        let chunk = chunks.next().unwrap();
        let key = bytes::Bytes::from_static(b"/a");
        assert!(
            chunks
                .give_back(chunk, CommitError::Conflict { key })
                .is_err()
        );
    }
}
