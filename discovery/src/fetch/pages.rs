//! Follows the markers of a list in pages, and knows when it is not getting anywhere.

use std::collections::HashSet;

use super::FetchError;

/// Most pages that one scan reads of one list: 100,000 databases at the usual 100 a page.
pub(crate) const PAGES_MAX: usize = 1_000;

/// The markers that one list has given so far.
#[derive(Debug)]
pub(crate) struct Pages {
    action: &'static str,
    markers: HashSet<String>,
}

impl Pages {
    /// No page read yet of what `action` lists.
    pub(crate) fn new(action: &'static str) -> Self {
        Self {
            action,
            markers: HashSet::new(),
        }
    }

    /// Where to go on after a page that ended in `marker`; `None` is the end of the list.
    ///
    /// Whether the page held anything is not asked: AWS gives empty pages with a marker.
    pub(crate) fn after(&mut self, marker: Option<String>) -> Result<Option<String>, FetchError> {
        let Some(marker) = marker.filter(|marker| !marker.is_empty()) else {
            return Ok(None);
        };
        let action = self.action;
        let pages = self.markers.len() + 1;
        if !self.markers.insert(marker.clone()) {
            return Err(FetchError::RepeatedMarker { action, pages });
        }
        if pages >= PAGES_MAX {
            return Err(FetchError::TooManyPages { action });
        }
        Ok(Some(marker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_or_empty_marker_ends_the_list() {
        let mut pages = Pages::new("a:List");
        assert_eq!(pages.after(Some("x".into())).unwrap(), Some("x".into()));
        assert_eq!(pages.after(Some(String::new())).unwrap(), None);
        assert_eq!(pages.after(None).unwrap(), None);
    }

    #[test]
    fn a_marker_that_comes_again_is_an_error_and_so_is_a_list_without_end() {
        let mut pages = Pages::new("a:List");
        pages.after(Some("x".into())).unwrap();
        pages.after(Some("y".into())).unwrap();
        assert!(matches!(
            pages.after(Some("x".into())),
            Err(FetchError::RepeatedMarker { .. })
        ));

        let mut pages = Pages::new("a:List");
        let read = (1..)
            .take_while(|n| pages.after(Some(n.to_string())).is_ok())
            .count();
        assert_eq!(read + 1, PAGES_MAX);
    }
}
