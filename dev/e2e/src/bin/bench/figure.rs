//! One measured figure beside its reference, and how it is printed.

use serde_json::json;

/// What was measured, and what it stands beside.
pub(crate) struct Figure {
    bench: &'static str,
    metric: String,
    unit: &'static str,
    measured: Measured,
    /// How many of what it was measured with, where that varies.
    of: Option<(usize, &'static str)>,
}

enum Measured {
    /// Ours and the reference, a pair a round: medians, and the median of the ratios.
    Rounds(Vec<(f64, f64)>),
    /// One value with nothing to stand beside.
    Once(f64),
}

impl Figure {
    /// A figure that rounds are added to.
    pub(crate) fn of_rounds(bench: &'static str, metric: &str, unit: &'static str) -> Self {
        Self {
            bench,
            metric: metric.to_owned(),
            unit,
            measured: Measured::Rounds(Vec::new()),
            of: None,
        }
    }

    /// A figure that was measured once beside a reference.
    pub(crate) fn beside(
        bench: &'static str,
        metric: &str,
        unit: &'static str,
        ours: f64,
        reference: f64,
    ) -> Self {
        Self {
            bench,
            metric: metric.to_owned(),
            unit,
            measured: Measured::Rounds(vec![(ours, reference)]),
            of: None,
        }
    }

    /// A figure without a reference.
    pub(crate) fn once(bench: &'static str, metric: &str, unit: &'static str, value: f64) -> Self {
        Self {
            bench,
            metric: metric.to_owned(),
            unit,
            measured: Measured::Once(value),
            of: None,
        }
    }

    /// The figure, measured with so many of something.
    pub(crate) fn of(mut self, count: usize, what: &'static str) -> Self {
        self.of = Some((count, what));
        self
    }

    pub(crate) fn metric(&self) -> &str {
        &self.metric
    }

    /// Adds a round: ours, then the reference.
    pub(crate) fn add(&mut self, pair: (f64, f64)) {
        if let Measured::Rounds(rounds) = &mut self.measured {
            rounds.push(pair);
        }
    }

    pub(crate) fn print(&self, as_json: bool) {
        let (ours, beside) = match &self.measured {
            Measured::Once(value) => (*value, None),
            Measured::Rounds(rounds) => {
                let ours = median(rounds.iter().map(|round| round.0));
                let reference = median(rounds.iter().map(|round| round.1));
                (
                    ours,
                    Some((
                        reference,
                        median(rounds.iter().map(|round| round.0 / round.1)),
                    )),
                )
            }
        };
        let (reference, ratio) = beside.unzip();
        if as_json {
            let mut line = json!({
                "bench": self.bench,
                "metric": self.metric,
                "value": rounded(ours),
                "unit": self.unit,
                "reference": reference.map(rounded),
                "ratio": ratio.map(rounded),
            });
            if let Some((count, what)) = self.of {
                line[what] = json!(count);
            }
            println!("{line}");
        } else {
            let beside = beside.map_or_else(String::new, |(reference, ratio)| {
                format!("   beside {reference:>12.2}   ratio {ratio:>6.3}")
            });
            let of = self.of.map_or_else(String::new, |(count, what)| {
                format!("   with {count} {what}")
            });
            println!(
                "{:<32} {ours:>12.2} {:<6}{beside}{of}",
                self.metric, self.unit
            );
        }
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The middle of some values; not a number when there are none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_whatever_the_order() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0].into_iter()) - 2.5).abs() < f64::EPSILON);
    }
}
