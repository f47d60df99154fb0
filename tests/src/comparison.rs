//! Compares two systems by what was measured on each: medians, ratios, a table, and a file of JSON.

use std::error::Error;
use std::fs;
use std::path::Path;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

/// Units of which more is better; of all others less is.
const MORE_IS_BETTER: [&str; 4] = ["IOPS", "MiB/s", "ops/s", "x"];

/// One measurement, as `uring-bench` prints it.
#[derive(Clone, Debug, Deserialize)]
pub struct Measured {
    /// What was measured.
    pub name: String,
    /// In what.
    pub unit: String,
    /// The result.
    pub value: f64,
}

/// Which of the two systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What we compare with.
    Reference,
    /// Ours.
    Ours,
}

/// Everything that was measured on both.
pub struct Comparison {
    /// What the two are called, in the order of [`Side`].
    names: [&'static str; 2],
    series: Vec<Series>,
}

/// The values of one name on both sides.
struct Series {
    name: String,
    unit: String,
    values: [Vec<f64>; 2],
}

/// An entry of the file.
struct Entry<'a> {
    names: [&'static str; 2],
    name: &'a str,
    unit: &'a str,
    medians: [Option<f64>; 2],
    ratio: Option<f64>,
}

impl Comparison {
    /// Nothing yet, of two systems with these names.
    pub fn new(reference: &'static str, ours: &'static str) -> Self {
        Self {
            names: [reference, ours],
            series: Vec::new(),
        }
    }

    /// Adds a value.
    pub fn add(&mut self, side: Side, measured: Measured) {
        let known = |series: &Series| series.name == measured.name;
        let index = self.series.iter().position(known).unwrap_or_else(|| {
            self.series.push(Series {
                name: measured.name.clone(),
                unit: measured.unit.clone(),
                values: [Vec::new(), Vec::new()],
            });
            self.series.len() - 1
        });
        self.series[index].values[side as usize].push(measured.value);
    }

    /// Adds, as `name`, how many times more of `more` there was than of `base` when both were
    /// measured last, for each side that has both.
    pub fn add_quotient(&mut self, name: &str, more: &str, base: &str) {
        for side in [Side::Reference, Side::Ours] {
            if let (Some(more), Some(base)) = (self.last(side, more), self.last(side, base)) {
                let measured = Measured {
                    name: name.to_owned(),
                    unit: "x".to_owned(),
                    value: more / base,
                };
                self.add(side, measured);
            }
        }
    }

    /// The value that was added last.
    fn last(&self, side: Side, name: &str) -> Option<f64> {
        let series = self.series.iter().find(|series| series.name == name)?;
        series.values[side as usize].last().copied()
    }

    /// Prints a table of medians. A ratio above 1 means that ours is better.
    pub fn print(&self) {
        let [reference, ours] = self.names;
        println!(
            "{:<22} {:>6} {:>12} {:>12} {:>7} {:>8} {:>8}",
            "benchmark",
            "unit",
            reference,
            ours,
            "ratio",
            format!("spread {}", &reference[..1]),
            format!("spread {}", &ours[..1]),
        );
        let show = |value: Option<f64>, digits: usize, unit: &str| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}{unit}"))
        };
        for series in &self.series {
            let entry = series.entry(self.names);
            let [reference, ours] = entry.medians;
            let digits = if entry.unit == "x" { 2 } else { 1 };
            let [spread_reference, spread_ours] = series.values.each_ref().map(|all| spread(all));
            println!(
                "{:<22} {:>6} {:>12} {:>12} {:>7} {:>8} {:>8}",
                entry.name,
                entry.unit,
                show(reference, digits, ""),
                show(ours, digits, ""),
                show(entry.ratio, 2, ""),
                show(spread_reference, 0, "%"),
                show(spread_ours, 0, "%"),
            );
        }
    }

    /// Writes the medians and ratios as JSON.
    ///
    /// # Errors
    ///
    /// What writing a file gives.
    pub fn write(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let entries: Vec<_> = self
            .series
            .iter()
            .map(|series| series.entry(self.names))
            .collect();
        fs::write(path, serde_json::to_string_pretty(&entries)? + "\n")?;
        Ok(())
    }
}

impl Series {
    fn entry(&self, names: [&'static str; 2]) -> Entry<'_> {
        let medians = self.values.each_ref().map(|values| median(values));
        let ratio = match medians {
            [Some(reference), Some(ours)] if MORE_IS_BETTER.contains(&self.unit.as_str()) => {
                Some(ours / reference)
            }
            [Some(reference), Some(ours)] => Some(reference / ours),
            _ => None,
        };
        Entry {
            names,
            name: &self.name,
            unit: &self.unit,
            medians,
            ratio,
        }
    }
}

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", self.name)?;
        map.serialize_entry("unit", self.unit)?;
        for (name, median) in self.names.iter().zip(self.medians) {
            map.serialize_entry(name, &median)?;
        }
        map.serialize_entry("ratio", &self.ratio)?;
        map.end()
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The distance between the extremes, in percent of the median.
fn spread(values: &[f64]) -> Option<f64> {
    let low = values.iter().copied().min_by(f64::total_cmp)?;
    let high = values.iter().copied().max_by(f64::total_cmp)?;
    Some((high - low) / median(values)? * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &str, unit: &str, value: f64) -> Measured {
        Measured {
            name: name.to_owned(),
            unit: unit.to_owned(),
            value,
        }
    }

    #[test]
    fn above_one_is_better_whatever_the_unit() {
        let mut comparison = Comparison::new("host", "guest");
        for (side, time, rate) in [(Side::Reference, 8.0, 10.0), (Side::Ours, 2.0, 40.0)] {
            comparison.add(side, measured("call", "ns", time));
            comparison.add(side, measured("reads", "IOPS", rate));
        }
        for series in &comparison.series {
            assert_eq!(series.entry(comparison.names).ratio, Some(4.0));
        }
    }

    #[test]
    fn entries_name_the_sides_and_what_is_missing_is_null() {
        let mut comparison = Comparison::new("host", "guest");
        comparison.add(Side::Ours, measured("boot", "ms", 5.0));
        let entry = comparison.series[0].entry(comparison.names);
        assert_eq!(
            serde_json::to_string(&entry).unwrap(),
            r#"{"name":"boot","unit":"ms","host":null,"guest":5.0,"ratio":null}"#
        );
    }

    #[test]
    fn medians_are_of_the_middle_and_quotients_of_the_last() {
        let mut comparison = Comparison::new("host", "guest");
        for value in [1.0, 9.0, 4.0] {
            comparison.add(Side::Ours, measured("one", "ops/s", value));
            comparison.add(Side::Ours, measured("two", "ops/s", 2.0 * value));
            comparison.add_quotient("scaling", "two", "one");
        }
        let entries = comparison.series.iter();
        let medians: Vec<_> = entries
            .map(|series| series.entry(comparison.names).medians[Side::Ours as usize])
            .collect();
        assert_eq!(medians, [Some(4.0), Some(8.0), Some(2.0)]);
    }
}
