//! The grammar of label selectors over the tokens of [`super::lexer`].

use super::label::{Operator, Requirement};
use super::lexer::{Token, tokens};

/// Reads a whole selector; the error says what stood where something else was expected.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, String> {
    Parser { tokens: tokens(text), at: 0 }.requirements()
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirements(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::End if requirements.is_empty() => return Ok(requirements),
                Token::Word(_) | Token::Not => requirements.push(self.requirement()?),
                token => {
                    return Err(format!(
                        "found '{}', expected: !, identifier, or 'end of string'",
                        token.text()
                    ));
                }
            }
            match self.next() {
                Token::End => return Ok(requirements),
                Token::Comma if matches!(self.peek(), Token::Word(_) | Token::Not) => {}
                Token::Comma => {
                    return Err(format!(
                        "found '{}', expected: identifier after ','",
                        self.peek().text()
                    ));
                }
                token => {
                    return Err(format!(
                        "found '{}', expected: ',' or 'end of string'",
                        token.text()
                    ));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.peek() == Token::Not;
        if negated {
            self.next();
        }
        let Token::Word(key) = self.next() else {
            return Err("expected: identifier".to_owned());
        };
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        let operator = match self.peek() {
            Token::End | Token::Comma => {
                return Requirement::new(key, Operator::Exists, Vec::new());
            }
            Token::Equals => Operator::In,
            Token::NotEquals => Operator::NotIn,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            Token::Word(word @ ("in" | "notin")) => {
                self.next();
                let operator = if word == "in" { Operator::In } else { Operator::NotIn };
                return Requirement::new(key, operator, self.values()?);
            }
            token => {
                return Err(format!(
                    "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                    token.text()
                ));
            }
        };
        self.next();
        Requirement::new(key, operator, vec![self.exact_value()?])
    }

    fn exact_value(&mut self) -> Result<String, String> {
        match self.peek() {
            Token::End | Token::Comma => Ok(String::new()),
            Token::Word(word) => {
                self.next();
                Ok(word.to_owned())
            }
            token => Err(format!("found '{}', expected: identifier", token.text())),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        if self.next() != Token::Open {
            return Err("found '', expected: '('".to_owned());
        }
        let mut values = Vec::new();
        let mut after_comma = true;
        loop {
            match self.next() {
                Token::Word(word) if after_comma => {
                    values.push(word.to_owned());
                    after_comma = false;
                }
                Token::Comma => {
                    if after_comma {
                        values.push(String::new());
                    }
                    after_comma = true;
                }
                Token::Close => {
                    if after_comma && !values.is_empty() || values.is_empty() {
                        values.push(String::new());
                    }
                    return Ok(values);
                }
                token => {
                    return Err(format!("found '{}', expected: ',', or ')'", token.text()));
                }
            }
        }
    }
}
