//! The schedules of CronJobs: five fields, or a descriptor such as `@daily` or `@every 1h30m`.
//!
//! The apiserver refuses what does not parse here, and the controller runs what does. A date that does not exist on the
//! clock of the zone is skipped or moved as croner says; one that never comes (`0 0 31 2 *`) has no occurrence.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::time::parse_go_duration;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// When something happens again and again.
#[derive(Clone, Debug)]
pub struct Schedule(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Cron(Box<Cron>),
    Every(SignedDuration),
}

impl Schedule {
    /// Reads a schedule; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(descriptor) = text.strip_prefix('@') {
            return Self::descriptor(descriptor)
                .ok_or_else(|| format!("unrecognized descriptor: {text}"));
        }
        let fields: Vec<_> = text.split_whitespace().collect();
        if fields.len() != 5 {
            let (found, all) = (fields.len(), fields.join(" "));
            return Err(format!("expected exactly 5 fields, found {found}: [{all}]"));
        }
        if !fields.iter().enumerate().all(|(position, field)| is_plain(position, field)) {
            return Err(format!("failed to parse schedule: {text}"));
        }
        Self::cron(text)
    }

    fn descriptor(name: &str) -> Option<Self> {
        if let Some(text) = name.strip_prefix("every ") {
            let seconds = parse_go_duration(text)?.max(1.0).trunc();
            return Some(Self(Kind::Every(SignedDuration::try_from_secs_f64(seconds).ok()?)));
        }
        let fields = match name {
            "yearly" | "annually" => "0 0 1 1 *",
            "monthly" => "0 0 1 * *",
            "weekly" => "0 0 * * 0",
            "daily" | "midnight" => "0 0 * * *",
            "hourly" => "0 * * * *",
            _ => return None,
        };
        Self::cron(fields).ok()
    }

    fn cron(text: &str) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed);
        let cron = parser.sloppy_ranges(true).build().parse(text);
        cron.map(|cron| Self(Kind::Cron(Box::new(cron)))).map_err(|error| error.to_string())
    }

    /// The first time after `after`.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let after = whole_seconds(after);
        match &self.0 {
            Kind::Every(period) => after.checked_add(*period).ok(),
            Kind::Cron(cron) => {
                let after = after.to_zoned(zone.clone());
                cron.find_next_occurrence(&after, false).ok().map(|time| time.timestamp())
            }
        }
    }

    /// The last time after `after` that is not after `until`.
    pub fn latest(&self, after: Timestamp, until: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let (after, until) = (whole_seconds(after), whole_seconds(until));
        let latest = match &self.0 {
            Kind::Every(period) => {
                let periods = until.duration_since(after).as_secs() / period.as_secs();
                after.checked_add(SignedDuration::from_secs(periods * period.as_secs())).ok()?
            }
            Kind::Cron(cron) => {
                let until = until.to_zoned(zone.clone());
                cron.find_previous_occurrence(&until, true).ok()?.timestamp()
            }
        };
        (latest > after).then_some(latest)
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Whether a field keeps to numbers, names, ranges, lists and steps: the parser knows more than cron does.
fn is_plain(position: usize, field: &str) -> bool {
    let names: &[&str] = match position {
        3 => &MONTHS,
        4 => &WEEKDAYS,
        _ => &[],
    };
    let is_value = |part: &str| {
        matches!(part, "*" | "?")
            || (!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
            || names.contains(&part.to_ascii_lowercase().as_str())
    };
    field.split([',', '-', '/']).all(is_value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn next_and_latest_are_neighbours() {
        for (schedule, zone, at, latest, next) in [
            (
                "*/5 * * * *",
                "UTC",
                "2026-01-01T10:07:30Z",
                "2026-01-01T10:05:00Z",
                "2026-01-01T10:10:00Z",
            ),
            (
                "*/5 * * * *",
                "UTC",
                "2026-01-01T10:10:00Z",
                "2026-01-01T10:10:00Z",
                "2026-01-01T10:15:00Z",
            ),
            (
                "2/20 * * * ?",
                "UTC",
                "2026-01-01T10:10:00Z",
                "2026-01-01T10:02:00Z",
                "2026-01-01T10:22:00Z",
            ),
            (
                "@hourly",
                "UTC",
                "2026-01-01T10:10:00Z",
                "2026-01-01T10:00:00Z",
                "2026-01-01T11:00:00Z",
            ),
            (
                "@midnight",
                "UTC",
                "2026-01-01T10:10:00Z",
                "2026-01-01T00:00:00Z",
                "2026-01-02T00:00:00Z",
            ),
            (
                "30 6 * * mon-fri",
                "UTC",
                "2026-01-03T10:00:00Z",
                "2026-01-02T06:30:00Z",
                "2026-01-05T06:30:00Z",
            ),
            (
                "0 0 * * 7",
                "UTC",
                "2026-01-03T10:00:00Z",
                "2025-12-28T00:00:00Z",
                "2026-01-04T00:00:00Z",
            ),
            // Either day counts when both are given.
            (
                "0 0 13 * FRI",
                "UTC",
                "2026-01-10T00:00:01Z",
                "2026-01-09T00:00:00Z",
                "2026-01-13T00:00:00Z",
            ),
            (
                "0 9 * * *",
                "Asia/Tokyo",
                "2026-01-01T10:00:00Z",
                "2026-01-01T00:00:00Z",
                "2026-01-02T00:00:00Z",
            ),
        ] {
            let zone = if zone == "UTC" { TimeZone::UTC } else { TimeZone::get(zone).unwrap() };
            let parsed = Schedule::parse(schedule).unwrap();
            assert_eq!(parsed.next(time(at), &zone), Some(time(next)), "{schedule} after {at}");
            let got = parsed.latest(time("2025-12-01T00:00:00Z"), time(at), &zone);
            assert_eq!(got, Some(time(latest)), "{schedule} before {at}");
            assert_eq!(parsed.latest(time(latest), time(at), &zone), None, "{schedule} is new");
        }
    }

    #[test]
    fn period_counts_from_the_last_time() {
        let every = Schedule::parse("@every 1h30m").unwrap();
        let (last, now) = (time("2026-01-01T10:00:00.5Z"), time("2026-01-01T13:10:00Z"));
        assert_eq!(every.next(last, &TimeZone::UTC), Some(time("2026-01-01T11:30:00Z")));
        assert_eq!(every.latest(last, now, &TimeZone::UTC), Some(time("2026-01-01T13:00:00Z")));
        assert_eq!(every.latest(last, time("2026-01-01T11:29:59Z"), &TimeZone::UTC), None);
    }

    #[test]
    fn never_is_an_answer() {
        let never = Schedule::parse("0 0 31 2 *").unwrap();
        let (from, to) = (time("2020-01-01T00:00:00Z"), time("2026-01-01T00:00:00Z"));
        assert_eq!(never.next(from, &TimeZone::UTC), None);
        assert_eq!(never.latest(from, to, &TimeZone::UTC), None);
    }

    #[test]
    fn what_cron_does_not_know_is_refused() {
        for (text, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("0 0 * * * *", "expected exactly 5 fields, found 6: [0 0 * * * *]"),
            ("@reboot", "unrecognized descriptor: @reboot"),
            ("@every soon", "unrecognized descriptor: @every soon"),
            ("0 0 L * *", "failed to parse schedule: 0 0 L * *"),
            ("0 0 1W * *", "failed to parse schedule: 0 0 1W * *"),
            ("0 0 * * 5#2", "failed to parse schedule: 0 0 * * 5#2"),
            ("mon 0 * * *", "failed to parse schedule: mon 0 * * *"),
        ] {
            assert_eq!(Schedule::parse(text).unwrap_err(), why);
        }
        for text in
            ["60 * * * *", "* 24 * * *", "* * 32 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *"]
        {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }
}
