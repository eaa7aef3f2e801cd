//! Source text to tokens, each with its position.

use logos::Logos;

use super::ast::Position;
use super::parser::SyntaxError;

/// One token.
#[derive(Clone, Copy, Debug, PartialEq, Logos)]
#[logos(skip r"[ \t\r\n\f]+")]
pub(super) enum Token<'s> {
    /// Digits with optional fraction and exponent; no sign.
    #[regex(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")]
    Number(&'s str),
    /// A string with its quotes and escapes.
    #[regex(r#""([^"\\]|\\(.|\n))*""#)]
    #[regex(r"'([^'\\]|\\(.|\n))*'")]
    Text(&'s str),
    /// A name with dots; parts after the first may start with a digit.
    #[regex(r"[\p{XID_Start}_]\p{XID_Continue}*(\.\p{XID_Continue}+)*")]
    Name(&'s str),
    #[token("true")]
    True,
    #[token("false")]
    False,
    #[token("null")]
    Null,
    #[token("in")]
    In,
    #[token("(")]
    ParenOpen,
    #[token(")")]
    ParenClose,
    #[token("[")]
    BracketOpen,
    #[token("]")]
    BracketClose,
    #[token(",")]
    Comma,
    #[token("?")]
    Question,
    #[token(":")]
    Colon,
    #[token("||")]
    Or,
    #[token("&&")]
    And,
    #[token("!")]
    Not,
    #[token("==")]
    Equal,
    #[token("!=")]
    NotEqual,
    #[token("<")]
    Less,
    #[token("<=")]
    LessOrEqual,
    #[token(">")]
    Greater,
    #[token(">=")]
    GreaterOrEqual,
    #[token("+")]
    Plus,
    #[token("-")]
    Minus,
    #[token("*")]
    Star,
    #[token("/")]
    Slash,
    #[token("%")]
    Percent,
}

/// A token, as written and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexeme<'s> {
    pub(super) token: Token<'s>,
    pub(super) text: &'s str,
    pub(super) position: Position,
}

/// All tokens of `source`, and the position after the last character.
pub(super) fn tokenize(source: &str) -> Result<(Vec<Lexeme<'_>>, Position), SyntaxError> {
    let mut lexer = Token::lexer(source);
    let mut lexemes = Vec::new();
    let mut cursor = Cursor { offset: 0, position: Position { line: 1, column: 1 } };
    while let Some(found) = lexer.next() {
        let position = cursor.advance(source, lexer.span().start);
        match found {
            Ok(token) => lexemes.push(Lexeme { token, text: lexer.slice(), position }),
            Err(()) => return Err(SyntaxError::at(position, explain(&source[lexer.span().start..]))),
        }
    }
    Ok((lexemes, cursor.advance(source, source.len())))
}

/// Counts lines and columns from one token to the next, so that the whole source is walked once.
struct Cursor {
    offset: usize,
    position: Position,
}

impl Cursor {
    fn advance(&mut self, source: &str, to: usize) -> Position {
        for character in source[self.offset..to].chars() {
            if character == '\n' {
                self.position.line += 1;
                self.position.column = 1;
            } else {
                self.position.column += 1;
            }
        }
        self.offset = to;
        self.position
    }
}

fn explain(rest: &str) -> String {
    match rest.chars().next() {
        Some('"' | '\'') => "the string has no end".to_owned(),
        Some('=') => "unexpected '=', equality is '=='".to_owned(),
        Some('&') => "unexpected '&', and is '&&'".to_owned(),
        Some('|') => "unexpected '|', or is '||'".to_owned(),
        Some(other) => format!("unexpected {other:?}"),
        None => "unexpected end".to_owned(),
    }
}
