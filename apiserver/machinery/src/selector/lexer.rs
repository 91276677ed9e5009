//! Tokens of the label selector syntax.

/// A token; words are keys, values, `in`, `notin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Word(&'a str),
    Open,
    Close,
    Comma,
    Not,
    Equals,
    NotEquals,
    Greater,
    Less,
    End,
}

impl Token<'_> {
    /// The token as an error message shows it.
    pub(super) fn text(self) -> String {
        match self {
            Self::Word(word) => word.to_owned(),
            Self::Open => "(".to_owned(),
            Self::Close => ")".to_owned(),
            Self::Comma => ",".to_owned(),
            Self::Not => "!".to_owned(),
            Self::Equals => "=".to_owned(),
            Self::NotEquals => "!=".to_owned(),
            Self::Greater => ">".to_owned(),
            Self::Less => "<".to_owned(),
            Self::End => String::new(),
        }
    }
}

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<') || c.is_ascii_whitespace()
}

/// Splits a selector into tokens, ending with [`Token::End`].
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '>' => (Token::Greater, 1),
            '<' => (Token::Less, 1),
            '!' if rest.starts_with("!=") => (Token::NotEquals, 2),
            '!' => (Token::Not, 1),
            '=' if rest.starts_with("==") => (Token::Equals, 2),
            '=' => (Token::Equals, 1),
            _ => {
                let end = rest.find(is_special).unwrap_or(rest.len());
                (Token::Word(&rest[..end]), end)
            }
        };
        out.push(token);
        rest = rest[length..].trim_start();
    }
    out.push(Token::End);
    out
}
