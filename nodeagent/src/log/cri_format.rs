//! One line of a CRI log: `TIME STREAM TAGS TEXT`, where the tag `P` says that the line goes on in the
//! next record.

/// A parsed record. `text` ends with a newline unless the line goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// RFC 3339 with nanoseconds.
    pub time: &'a str,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// Whether the line goes on.
    pub partial: bool,
    /// What the container wrote.
    pub text: &'a [u8],
}

/// Parses one record with its newline; `None` for anything else.
pub fn parse(record: &[u8]) -> Option<Line<'_>> {
    let body = record.strip_suffix(b"\n")?;
    let mut parts = body.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream =
        std::str::from_utf8(parts.next()?).ok().filter(|s| matches!(*s, "stdout" | "stderr"))?;
    let tags = parts.next()?;
    let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
    let start = record.len() - 1 - parts.next().unwrap_or_default().len();
    let end = if partial { record.len() - 1 } else { record.len() };
    Some(Line { time, stream, partial, text: &record[start..end] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_taken_apart() {
        let line = parse(b"2026-01-02T03:04:05.000000006Z stdout F hello  world\n").unwrap();
        assert_eq!(line.time, "2026-01-02T03:04:05.000000006Z");
        assert_eq!(
            (line.stream, line.partial, line.text),
            ("stdout", false, &b"hello  world\n"[..])
        );
        let part = parse(b"2026-01-02T03:04:05Z stderr P half\n").unwrap();
        assert_eq!((part.partial, part.text), (true, &b"half"[..]));
        assert_eq!(parse(b"2026-01-02T03:04:05Z stdout F \n").unwrap().text, b"\n");
    }

    #[test]
    fn torn_and_foreign_records_are_nothing() {
        assert_eq!(parse(b"2026-01-02T03:04:05Z stdout F no end"), None);
        assert_eq!(parse(b"2026-01-02T03:04:05Z other F x\n"), None);
        assert_eq!(parse(b"\n"), None);
    }
}
