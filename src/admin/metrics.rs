//! A report as metrics: Prometheus text 0.0.4, or OpenMetrics 1.0.
//!
//! The names are a contract. Every family has its HELP and TYPE from the start,
//! also while it has no sample. Nothing is counted here.
//!
//! Sources: <https://prometheus.io/docs/instrumenting/exposition_formats/> and
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use super::report::{FILE_STATES, FileReport, Histogram, Report, TopicReport};

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The exact content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All metrics of a report.
pub(super) fn exposition(report: &Report, format: Format) -> String {
    let mut page = Page {
        text: String::new(),
        format,
    };
    page.topics(&report.topics);
    page.files(&report.files);
    page.kafka(report);
    page.process(report);
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

use Kind::{Counter, Gauge};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What is written so far.
struct Page {
    text: String,
    format: Format,
}

type Topics = BTreeMap<String, TopicReport>;

impl Page {
    fn topics(&mut self, topics: &Topics) {
        let mut sums = |name, help, value: fn(&TopicReport) -> u64| {
            self.by_topic(Counter, name, help, topics, value);
        };
        sums(
            "logship_read_lines_total",
            "Lines read and offered to a producer.",
            |topic| topic.read_lines,
        );
        sums(
            "logship_read_bytes_total",
            "Bytes of the lines read, line ends included.",
            |topic| topic.read_bytes,
        );
        sums(
            "logship_acked_lines_total",
            "Lines acknowledged by Kafka.",
            |topic| topic.acked_lines,
        );
        sums(
            "logship_acked_bytes_total",
            "Bytes of the lines acknowledged by Kafka, line ends included.",
            |topic| topic.acked_bytes,
        );
        sums(
            "logship_truncated_lines_total",
            "Lines cut at line_bytes_max.",
            |topic| topic.truncated_lines,
        );
        sums(
            "logship_dead_letter_bytes_total",
            "Bytes of lines that no broker takes.",
            |topic| topic.dead_letter_bytes,
        );
        let mut reasons = |name, help, values: fn(&TopicReport) -> &BTreeMap<String, u64>| {
            self.by_reason(name, help, topics, values);
        };
        reasons(
            "logship_dropped_lines_total",
            "Lines given up by choice.",
            |topic| &topic.dropped_lines,
        );
        reasons(
            "logship_dropped_bytes_total",
            "Bytes given up by choice.",
            |topic| &topic.dropped_bytes,
        );
        reasons(
            "logship_lost_bytes_total",
            "Bytes that could not be read any more.",
            |topic| &topic.lost_bytes,
        );
        reasons(
            "logship_dead_letter_lines_total",
            "Lines that went to the dead-letter file.",
            |topic| &topic.dead_letter_lines,
        );
        let mut now = |name, help, value: fn(&TopicReport) -> u64| {
            self.by_topic(Gauge, name, help, topics, value);
        };
        now(
            "logship_known_bytes",
            "Bytes of files, acknowledged, waiting, dropped, dead letters and lost.",
            |topic| topic.known_bytes,
        );
        now(
            "logship_lag_bytes",
            "Bytes of files that are not acknowledged, dropped or lost.",
            |topic| topic.lag_bytes,
        );
    }

    fn files(&mut self, files: &[FileReport]) {
        let mut states: BTreeMap<&str, u64> = FILE_STATES.map(|state| (state, 0)).into();
        for file in files {
            *states.entry(&file.state).or_default() += 1;
        }
        let name = "logship_files";
        self.family(Gauge, name, "Files that are tailed, by state.");
        for (state, count) in states {
            self.sample(name, &[("state", state)], count);
        }
    }

    fn kafka(&mut self, report: &Report) {
        let kafka = report.kafka.as_ref();
        self.single(
            Gauge,
            "logship_kafka_up",
            "1 while a broker answers, else 0.",
            kafka.map(|kafka| u8::from(kafka.up)),
        );
        self.single(
            Counter,
            "logship_kafka_requests_total",
            "Requests sent to brokers.",
            kafka.map(|kafka| kafka.requests),
        );
        self.by_label(
            "logship_kafka_errors_total",
            "Errors of brokers and of connections to them.",
            "error",
            kafka.into_iter().flat_map(|kafka| &kafka.errors),
        );
        self.histogram(
            "logship_kafka_request_seconds",
            "Time from a request to a broker to its answer.",
            kafka.map(|kafka| &kafka.request_seconds),
        );
    }

    fn process(&mut self, report: &Report) {
        self.single(
            Gauge,
            "logship_queue_bytes",
            "Bytes read and not yet in a batch.",
            Some(report.queue.bytes),
        );
        self.single(
            Gauge,
            "logship_checkpoint_age_seconds",
            "Time since the positions were last written down.",
            report.checkpoint_age_seconds,
        );
        self.single(
            Gauge,
            "logship_config_revision",
            "Configs applied since the start, the first one included.",
            Some(report.config.revision),
        );
        self.by_label(
            "logship_config_reloads_total",
            "Reloads of the config, by result.",
            "result",
            &report.config.reloads,
        );
        self.by_label(
            "logship_task_restarts_total",
            "Tasks started again after they had failed.",
            "task",
            report
                .tasks
                .iter()
                .map(|(kind, task)| (kind, &task.restarts)),
        );
        self.single(
            Gauge,
            "logship_held_deleted_bytes",
            "Bytes of the disk that deleted files take, held open until they are acknowledged.",
            Some(report.held_deleted_bytes),
        );
        self.single(
            Gauge,
            "logship_open_files",
            "Log files that are open.",
            Some(report.open_files),
        );
        self.single(
            Gauge,
            "logship_open_files_max",
            "Log files that may be open at once.",
            Some(report.open_files_max),
        );
    }

    // ---- shapes of families ----------------------------------------------------

    fn single(&mut self, kind: Kind, name: &str, help: &str, value: Option<impl Display>) {
        self.family(kind, name, help);
        if let Some(value) = value {
            self.sample(name, &[], value);
        }
    }

    fn by_label<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a String, &'a u64)>,
    ) {
        self.family(Counter, name, help);
        for (text, value) in values {
            self.sample(name, &[(label, text)], value);
        }
    }

    fn by_topic(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        topics: &Topics,
        value: fn(&TopicReport) -> u64,
    ) {
        self.family(kind, name, help);
        for (topic, figures) in topics {
            self.sample(name, &[("topic", topic)], value(figures));
        }
    }

    fn by_reason(
        &mut self,
        name: &str,
        help: &str,
        topics: &Topics,
        values: fn(&TopicReport) -> &BTreeMap<String, u64>,
    ) {
        self.family(Counter, name, help);
        for (topic, figures) in topics {
            for (reason, value) in values(figures) {
                self.sample(name, &[("topic", topic), ("reason", reason)], value);
            }
        }
    }

    /// Buckets in the text are cumulative, and the last one holds everything.
    fn histogram(&mut self, name: &str, help: &str, histogram: Option<&Histogram>) {
        self.family(Kind::Histogram, name, help);
        let Some(histogram) = histogram else { return };
        let (bucket, mut below) = (format!("{name}_bucket"), 0);
        for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
            below += count;
            let bound = match self.format {
                Format::Text => bound.to_string(),
                Format::OpenMetrics => format!("{bound:?}"), // canonical: 1 is "1.0"
            };
            self.sample(&bucket, &[("le", &bound)], below);
        }
        let all = histogram.count.max(below);
        self.sample(&bucket, &[("le", "+Inf")], all);
        self.sample(&format!("{name}_sum"), &[], histogram.sum);
        self.sample(&format!("{name}_count"), &[], all);
    }

    // ---- lines -----------------------------------------------------------------

    fn family(&mut self, kind: Kind, name: &str, help: &str) {
        // In OpenMetrics `_total` belongs to the sample, not to the family.
        let name = match (self.format, kind) {
            (Format::OpenMetrics, Counter) => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let kind = match kind {
            Counter => "counter",
            Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        let mut separator = '{';
        for (label, value) in labels {
            let _ = write!(self.text, "{separator}{label}=\"");
            self.escape(value);
            self.text.push('"');
            separator = ',';
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// A label's value may hold anything, but three characters are escaped.
    fn escape(&mut self, value: &str) {
        for c in value.chars() {
            match c {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                c => self.text.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::KafkaReport;
    use super::*;

    /// The names are a contract with every dashboard and alert there is.
    const FAMILIES: [(&str, &str); 25] = [
        ("logship_read_lines_total", "counter"),
        ("logship_read_bytes_total", "counter"),
        ("logship_acked_lines_total", "counter"),
        ("logship_acked_bytes_total", "counter"),
        ("logship_truncated_lines_total", "counter"),
        ("logship_dead_letter_bytes_total", "counter"),
        ("logship_dropped_lines_total", "counter"),
        ("logship_dropped_bytes_total", "counter"),
        ("logship_lost_bytes_total", "counter"),
        ("logship_dead_letter_lines_total", "counter"),
        ("logship_known_bytes", "gauge"),
        ("logship_lag_bytes", "gauge"),
        ("logship_files", "gauge"),
        ("logship_kafka_up", "gauge"),
        ("logship_kafka_requests_total", "counter"),
        ("logship_kafka_errors_total", "counter"),
        ("logship_kafka_request_seconds", "histogram"),
        ("logship_queue_bytes", "gauge"),
        ("logship_checkpoint_age_seconds", "gauge"),
        ("logship_config_revision", "gauge"),
        ("logship_config_reloads_total", "counter"),
        ("logship_task_restarts_total", "counter"),
        ("logship_held_deleted_bytes", "gauge"),
        ("logship_open_files", "gauge"),
        ("logship_open_files_max", "gauge"),
    ];

    #[test]
    fn every_family_is_there_while_nothing_has_happened() {
        let text = exposition(&Report::default(), Format::Text);
        let types: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .collect();
        assert_eq!(types, FAMILIES);
        let helped = text.lines().filter(|line| line.starts_with("# HELP "));
        assert_eq!(helped.count(), FAMILIES.len());
    }

    #[test]
    fn a_label_cannot_end_its_line() {
        let mut report = Report::default();
        report.config.reloads.insert("a\"b\\c\nd".to_owned(), 3);
        let text = exposition(&report, Format::Text);
        let line = "logship_config_reloads_total{result=\"a\\\"b\\\\c\\nd\"} 3\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn buckets_add_up_to_the_count() {
        let request_seconds = Histogram {
            bounds: vec![0.01, 1.0],
            counts: vec![2, 3, 1],
            sum: 7.5,
            count: 6,
        };
        let kafka = KafkaReport {
            request_seconds,
            ..KafkaReport::default()
        };
        let report = Report {
            kafka: Some(kafka),
            ..Report::default()
        };
        let buckets = |format| {
            exposition(&report, format)
                .lines()
                .filter_map(|line| line.strip_prefix("logship_kafka_request_seconds_"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let rest = ["bucket{le=\"+Inf\"} 6", "sum 7.5", "count 6"];
        let text = ["bucket{le=\"0.01\"} 2", "bucket{le=\"1\"} 5"];
        assert_eq!(buckets(Format::Text), [&text[..], &rest].concat());
        let open = ["bucket{le=\"0.01\"} 2", "bucket{le=\"1.0\"} 5"];
        assert_eq!(buckets(Format::OpenMetrics), [&open[..], &rest].concat());
    }

    #[test]
    fn openmetrics_names_families_without_their_suffix_and_says_where_it_ends() {
        let text = exposition(&Report::default(), Format::OpenMetrics);
        assert!(
            text.contains("# TYPE logship_read_lines counter\n"),
            "{text}"
        );
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }
}
