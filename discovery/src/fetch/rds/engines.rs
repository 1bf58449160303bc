//! Which engines to ask for: all at once, and one by one after AWS refused to know one of them.

use std::collections::VecDeque;

use super::super::FetchError;

/// The code of AWS for a filter with an engine that a region does not know.
const UNKNOWN_VALUE: &str = "InvalidParameterValue";

/// Groups of engines that are still to be asked for.
#[derive(Debug)]
pub(super) struct Engines {
    all: Vec<&'static str>,
    rest: VecDeque<Vec<&'static str>>,
    one_by_one: bool,
    /// Whether an engine is known.
    answered: bool,
    refusal: Option<FetchError>,
}

impl Engines {
    pub(super) fn new(all: impl IntoIterator<Item = &'static str>) -> Self {
        let all: Vec<_> = all.into_iter().collect();
        Self {
            rest: VecDeque::from([all.clone()]),
            all,
            one_by_one: false,
            answered: false,
            refusal: None,
        }
    }

    /// What to ask for next. Ends after one request for all and one for each.
    pub(super) fn next(&mut self) -> Option<Vec<&'static str>> {
        self.rest.pop_front()
    }

    /// Takes the outcome of the last request; any failure but that of an unknown engine ends the list.
    pub(super) fn answered(&mut self, outcome: Result<(), FetchError>) -> Result<(), FetchError> {
        match outcome {
            Ok(()) => self.answered = true,
            Err(FetchError::Aws(failure)) if failure.code.as_deref() == Some(UNKNOWN_VALUE) => {
                self.refusal = Some(FetchError::Aws(failure));
                if !self.one_by_one {
                    self.one_by_one = true;
                    self.rest = self.all.iter().map(|engine| vec![*engine]).collect();
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether the list is whole. A region that refuses every engine refuses something else.
    pub(super) fn end(self) -> Result<(), FetchError> {
        match self.refusal {
            Some(refusal) if !self.answered => Err(refusal),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_aws::{AwsErrorClass, AwsFailure};

    use super::*;

    fn unknown() -> Result<(), FetchError> {
        let mut failure = AwsFailure::new(AwsErrorClass::InvalidRequest, "a", "Unrecognized");
        failure.code = Some(UNKNOWN_VALUE.to_owned());
        Err(failure.into())
    }

    #[test]
    fn engines_are_asked_for_together_and_one_by_one_after_a_refusal() {
        let mut engines = Engines::new(["a", "b"]);
        assert_eq!(engines.next().unwrap(), ["a", "b"]);
        engines.answered(Ok(())).unwrap();
        assert_eq!(engines.next(), None);
        engines.end().unwrap();

        let mut engines = Engines::new(["a", "b"]);
        engines.next();
        engines.answered(unknown()).unwrap();
        assert_eq!(engines.next().unwrap(), ["a"]);
        engines.answered(Ok(())).unwrap();
        assert_eq!(engines.next().unwrap(), ["b"]);
        engines.answered(unknown()).unwrap();
        assert_eq!(engines.next(), None);
        engines.end().unwrap();
    }

    #[test]
    fn a_region_that_refuses_every_engine_or_fails_otherwise_is_not_read() {
        let mut engines = Engines::new(["a", "b"]);
        while engines.next().is_some() {
            engines.answered(unknown()).unwrap();
        }
        assert!(engines.end().is_err());

        let mut engines = Engines::new(["a"]);
        engines.next();
        let throttled = AwsFailure::new(AwsErrorClass::Throttled, "a", "");
        assert!(engines.answered(Err(throttled.into())).is_err());
    }
}
