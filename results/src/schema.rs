//! The columns of every table, read off the structs that are its rows: `longhaul schema` prints them, and
//! `results/schema.json` keeps them, so that other software knows what to read a column as.

use serde::Serialize;

use crate::breaks::Verdict;
use crate::record::{Split, Status};
use crate::reproduction::Agreement;

/// The version of all tables together. It goes up when a column gets another name, type or meaning.
pub const VERSION: u32 = 1;

/// A column of a table.
#[derive(Debug, Clone, Serialize)]
pub struct Column {
    /// Its head.
    pub name: &'static str,
    /// `string`, `integer` (from 0, below 2^64), `number` (float64) or `boolean` (`true`, `false`).
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// All values that there are, of a column that has few.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub values: &'static [&'static str],
    /// Unit of its numbers, where they have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<&'static str>,
    /// Whether a field may be empty, which is an unknown value of a number and no text of a string; its meaning says
    /// when.
    pub empty: bool,
    /// What it means.
    pub meaning: String,
}

/// A table: files of the same columns.
#[derive(Debug, Clone, Serialize)]
pub struct TableSchema {
    /// Names of its files in a run's or a report's folder.
    pub files: &'static [&'static str],
    /// What a row is.
    pub row: &'static str,
    /// Its columns, in order.
    pub columns: Vec<Column>,
}

/// A type that stands in a field.
pub trait Field {
    /// Its name in the schema.
    const KIND: &'static str;
    /// All its values, where these are few.
    const VALUES: &'static [&'static str] = &[];
    /// Whether it may be empty.
    const EMPTY: bool = false;
}

impl Field for String {
    const KIND: &'static str = "string";
}

impl Field for u64 {
    const KIND: &'static str = "integer";
}

impl Field for u32 {
    const KIND: &'static str = "integer";
}

impl Field for f64 {
    const KIND: &'static str = "number";
}

impl Field for bool {
    const KIND: &'static str = "boolean";
}

impl Field for Split {
    const KIND: &'static str = "string";
    const VALUES: &'static [&'static str] = &["validation", "test"];
}

impl Field for Verdict {
    const KIND: &'static str = "string";
    const VALUES: &'static [&'static str] =
        &["supported", "not-supported", "undecided", "not-tested"];
}

impl Field for Agreement {
    const KIND: &'static str = "string";
    const VALUES: &'static [&'static str] = &["identical", "agrees", "differs", "missing"];
}

impl Field for Status {
    const KIND: &'static str = "string";
    const VALUES: &'static [&'static str] = &[
        "ok",
        "failed",
        "crashed",
        "timed-out",
        "out-of-memory",
        "not-run",
    ];
}

impl<T: Field> Field for Option<T> {
    const KIND: &'static str = T::KIND;
    const VALUES: &'static [&'static str] = T::VALUES;
    const EMPTY: bool = true;
}

/// A struct that is a row of a table.
pub trait Row {
    /// Its columns, in order.
    fn columns() -> Vec<Column>;
}

impl Column {
    /// Of a field with its documentation. Its name says the unit, or that does: `Where it was looked at, in tokens.`
    /// A text may be empty where that says when: `Empty for the whole cell.`
    pub fn of<T: Field>(name: &'static str, meaning: &str) -> Self {
        let meaning = meaning.trim().to_owned();
        let units = ["tokens", "bytes", "seconds", "nats"];
        let named = |unit: &&&str| meaning.contains(&format!(", in {unit}"));
        let unit = match name {
            "tokens_per_second" => Some("tokens/second"),
            _ if name.ends_with("_bytes") => Some("bytes"),
            _ if name.contains("length") && T::KIND == "integer" => Some("tokens"),
            _ => units.iter().find(named).copied(),
        };
        let is_text = T::KIND == "string" && T::VALUES.is_empty();
        Self {
            name,
            kind: T::KIND,
            values: T::VALUES,
            unit: unit.filter(|_| matches!(T::KIND, "integer" | "number")),
            empty: T::EMPTY || is_text && meaning.to_lowercase().contains("empty"),
            meaning,
        }
    }
}

/// Declares a struct as it stands, and its fields with their documentation as the columns of a table.
#[macro_export]
macro_rules! table_row {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                pub $field:ident: $type:ty,
            )*
        }
    ) => {
        $(#[$meta])*
        pub struct $name {
            $(
                $(#[doc = $doc])*
                pub $field: $type,
            )*
        }

        impl $crate::schema::Row for $name {
            fn columns() -> Vec<$crate::schema::Column> {
                vec![$(
                    $crate::schema::Column::of::<$type>(stringify!($field), concat!($($doc),*)),
                )*]
            }
        }
    };
}

/// A table of rows of a type.
pub fn table<R: Row>(files: &'static [&'static str], row: &'static str) -> TableSchema {
    TableSchema {
        files,
        row,
        columns: R::columns(),
    }
}

/// The tables that are made here.
pub fn tables() -> Vec<TableSchema> {
    vec![
        table::<crate::Measurement>(
            &["results.csv", "cells.csv", "breakdowns.csv"],
            "an evaluation of a trained model at a length, or a breakdown of one (`label`)",
        ),
        table::<crate::TrainingPoint>(&["training.csv"], "a step of a training"),
        table::<crate::Probe>(
            &["probes.csv"],
            "what was seen of a model beside its answers",
        ),
        table::<crate::SummaryRow>(
            &["summary.csv"],
            "a model at a length, all seeds together, and what its whole curve says",
        ),
        table::<crate::CapacityRow>(
            &["capacity.csv"],
            "a model at a length, by its bytes of state",
        ),
        table::<crate::BreakRow>(
            &["breaks.csv"],
            "an explanation of where a model's curve breaks, held against a control",
        ),
        table::<crate::FactorRow>(
            &["factors.csv"],
            "how much of the variance of accuracy architecture, size and budget explain at a length",
        ),
        table::<crate::PredictionRow>(
            &["prediction.csv"],
            "what ranks models early, against how a longer length ranks them",
        ),
        table::<crate::Comparison>(
            &["longhaul compare --csv"],
            "two models on the same examples of one task and length",
        ),
        table::<crate::Reproduced>(
            &["reproduction.csv"],
            "a measurement of a run, and the same of the run made once more",
        ),
        table::<crate::outcomes::Line>(
            &["outcomes/*.csv"],
            "a cell of one model, and what each of its examples scored",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Comparison, Measurement, Probe, Record, Reproduced, SummaryRow, TrainingPoint, csv_text,
    };

    fn names(columns: &[Column]) -> String {
        let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
        names.join(",") + "\n"
    }

    fn head<R: Record + Row>() {
        let text = csv_text(&[R::default()]);
        let head = text.split_inclusive('\n').next().expect("a header");
        assert_eq!(head, names(&R::columns()));
    }

    #[test]
    fn columns_are_the_heads_that_are_written() {
        head::<Measurement>();
        head::<TrainingPoint>();
        head::<Probe>();
        let text = csv_text(&[SummaryRow::default()]);
        assert!(text.starts_with(&names(&SummaryRow::columns())));
        let text = csv_text(&[Comparison::default()]);
        assert!(text.starts_with(&names(&Comparison::columns())));
        let text = csv_text(&[Reproduced::default()]);
        assert!(text.starts_with(&names(&Reproduced::columns())));
    }

    #[test]
    fn a_column_has_what_its_field_says() {
        let columns = Measurement::columns();
        let find = |name: &str| {
            columns
                .iter()
                .find(|column| column.name == name)
                .expect(name)
        };
        let length = find("eval_length");
        assert_eq!(
            (length.kind, length.unit, length.empty),
            ("integer", Some("tokens"), false)
        );
        let value = find("value_low");
        assert_eq!(
            (value.kind, value.unit, value.empty),
            ("number", None, true)
        );
        assert_eq!(value.meaning, "Lower end of the 95 % interval.");
        assert_eq!(find("nll").unit, Some("nats"));
        let summary = SummaryRow::columns();
        let lengths = summary
            .iter()
            .filter(|column| column.name.starts_with("effective_length"));
        assert!(lengths.clone().count() > 8);
        assert!(
            lengths
                .into_iter()
                .all(|column| (column.kind == "boolean") == column.unit.is_none())
        );
        assert_eq!(find("status").values.len(), 6);
        let empty = ["checkpoint", "label", "interval", "reason", "value"];
        assert!(empty.iter().all(|name| find(name).empty));
        let whole = [
            "run_id",
            "architecture",
            "task_options",
            "metric",
            "status",
            "seed",
        ];
        assert!(!whole.iter().any(|name| find(name).empty));
    }

    #[test]
    fn every_status_and_split_is_a_value() {
        use Status::*;
        for status in [Ok, Failed, Crashed, TimedOut, OutOfMemory, NotRun] {
            assert!(Status::VALUES.contains(&status.name()));
        }
        use Agreement::*;
        for agreement in [Identical, Agrees, Differs, Missing] {
            let text = csv_text(&[Reproduced {
                agreement,
                ..Reproduced::default()
            }]);
            let last = text.trim_end().rsplit(',').next().expect("a field");
            assert!(Agreement::VALUES.contains(&last), "{last}");
        }
        for row in [Split::Validation, Split::Test].map(|split| Measurement {
            split,
            ..Measurement::default()
        }) {
            let text = csv_text(&[row]);
            assert!(
                Split::VALUES
                    .iter()
                    .any(|value| text.contains(&format!(",{value},")))
            );
        }
    }
}
