//! Times and durations in Kubernetes' text forms.
use jiff::Timestamp;
/// `metav1.Time`: RFC 3339, UTC, whole seconds.
pub fn format(time: Timestamp) -> String {
    let _ = time;
    unimplemented!()
}
/// `metav1.MicroTime`.
pub fn format_micro(time: Timestamp) -> String {
    let _ = time;
    unimplemented!()
}
/// Parses RFC 3339.
pub fn parse(text: &str) -> Option<Timestamp> {
    let _ = text;
    unimplemented!()
}
/// `duration.HumanDuration`: `5d3h`, `2m10s`.
pub fn human_duration(seconds: i64) -> String {
    let _ = seconds;
    unimplemented!()
}
/// Parses a Go duration (`1h30m`) to seconds.
pub fn parse_go_duration(text: &str) -> Option<f64> {
    let _ = text;
    unimplemented!()
}
