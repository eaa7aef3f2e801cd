//! Tokens to a tree, by operator precedence. Size and nesting are limited while parsing, so that hostile input can not
//! exhaust the stack.

use std::ops::RangeInclusive;
use std::str::Chars;

use super::ast::{Ast, BinaryOperator, LOOSEST, Node, NodeId, NodeKind, Position, UnaryOperator};
use super::functions::Function;
use super::lexer::{Lexeme, Token, tokenize};
use super::limits::{DEPTH_MAX, NODES_MAX, SOURCE_BYTES_MAX, TEXT_BYTES_MAX};
use super::names::Name;
use crate::value::Value;

/// Why a text is not an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct SyntaxError {
    /// Line of the first character that does not fit, from 1.
    pub line: u32,
    /// Its place in the line in characters, from 1.
    pub column: u32,
    /// What is wrong, as a lower-case sentence without a full stop.
    pub message: String,
}

impl SyntaxError {
    pub(super) fn at(position: Position, message: impl Into<String>) -> Self {
        SyntaxError { line: position.line, column: position.column, message: message.into() }
    }
}

/// Parses one expression. Time and space are linear in the source.
///
/// # Errors
/// The first thing that is wrong: syntax, a limit of [`limits`](super::limits), an unknown function, or a call with the
/// wrong number of arguments.
pub fn parse(source: &str) -> Result<Ast, SyntaxError> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err(SyntaxError::at(START, format!("longer than {SOURCE_BYTES_MAX} bytes")));
    }
    let (lexemes, end) = tokenize(source)?;
    let mut parser = Parser { lexemes: &lexemes, end, nodes: Vec::new(), depth: 0 };
    parser.expression()?;
    match parser.lexemes.first() {
        None => Ok(Ast::new(parser.nodes)),
        Some(lexeme) => Err(unexpected(lexeme)),
    }
}

const START: Position = Position { line: 1, column: 1 };

type Parsed<T = NodeId> = Result<T, SyntaxError>;

struct Parser<'t, 's> {
    /// What is still to read.
    lexemes: &'t [Lexeme<'s>],
    /// Where the source ends.
    end: Position,
    /// What was read, in post-order.
    nodes: Vec<Node>,
    /// Constructs that are open around the next token.
    depth: usize,
}

impl<'t, 's> Parser<'t, 's> {
    fn expression(&mut self) -> Parsed {
        let condition = self.operation(LOOSEST)?;
        let Some(question) = self.accept(Token::Question) else { return Ok(condition) };
        self.nested(question.position, |parser| {
            let then = parser.expression()?;
            parser.expect(Token::Colon, "':'")?;
            let otherwise = parser.expression()?;
            parser.push(NodeKind::Conditional(condition, then, otherwise), question.position)
        })
    }

    /// Operands joined by operators that bind at least as tightly as `least`.
    fn operation(&mut self, least: u8) -> Parsed {
        let mut left = self.operand()?;
        while let Some(lexeme) = self.lexemes.first() {
            let Some(operator) = binary_operator(lexeme.token).filter(|found| found.precedence() >= least) else {
                break;
            };
            self.advance();
            let right = self.operation(operator.precedence() + 1)?;
            left = self.push(NodeKind::Binary(operator, left, right), lexeme.position)?;
        }
        Ok(left)
    }

    fn operand(&mut self) -> Parsed {
        let Some(lexeme) = self.advance() else {
            return Err(SyntaxError::at(self.end, "the expression ends where a value should follow"));
        };
        let position = lexeme.position;
        match lexeme.token {
            Token::Number(digits) => match digits.parse::<f64>() {
                Ok(number) if number.is_finite() => self.push(NodeKind::Literal(Value::Number(number)), position),
                Ok(_) | Err(_) => Err(SyntaxError::at(position, "the number is too large")),
            },
            Token::Text(quoted) => {
                let text = unescape(quoted).map_err(|message| SyntaxError::at(position, message))?;
                self.push(NodeKind::Literal(Value::text(text)), position)
            }
            Token::True => self.push(NodeKind::Literal(Value::Bool(true)), position),
            Token::False => self.push(NodeKind::Literal(Value::Bool(false)), position),
            Token::Null => self.push(NodeKind::Literal(Value::Null), position),
            Token::Name(name) => match self.accept(Token::ParenOpen) {
                None => self.push(NodeKind::Name(Name::from(name)), position),
                Some(_) => self.call(name, position),
            },
            Token::Not => self.unary(UnaryOperator::Not, position),
            Token::Minus => self.unary(UnaryOperator::Negate, position),
            Token::ParenOpen => self.nested(position, |parser| {
                let inner = parser.expression()?;
                parser.expect(Token::ParenClose, "')'")?;
                Ok(inner)
            }),
            Token::BracketOpen => self.nested(position, |parser| {
                let items = parser.separated(Token::BracketClose, "',' or ']'")?;
                parser.push(NodeKind::List(items), position)
            }),
            Token::In
            | Token::ParenClose
            | Token::BracketClose
            | Token::Comma
            | Token::Question
            | Token::Colon
            | Token::Or
            | Token::And
            | Token::Equal
            | Token::NotEqual
            | Token::Less
            | Token::LessOrEqual
            | Token::Greater
            | Token::GreaterOrEqual
            | Token::Plus
            | Token::Star
            | Token::Slash
            | Token::Percent => Err(unexpected(lexeme)),
        }
    }

    fn unary(&mut self, operator: UnaryOperator, position: Position) -> Parsed {
        self.nested(position, |parser| {
            let operand = parser.operand()?;
            parser.push(NodeKind::Unary(operator, operand), position)
        })
    }

    /// The rest of a call, after its opening parenthesis.
    fn call(&mut self, name: &str, position: Position) -> Parsed {
        let Some(function) = Function::named(name) else {
            return Err(SyntaxError::at(position, format!("unknown function {name}")));
        };
        self.nested(position, |parser| {
            let arguments = parser.separated(Token::ParenClose, "',' or ')'")?;
            let arity = function.arity();
            if !arity.contains(&arguments.len()) {
                let message = format!("{name} takes {}, not {}", describe(&arity), arguments.len());
                return Err(SyntaxError::at(position, message));
            }
            parser.push(NodeKind::Call(function, arguments), position)
        })
    }

    /// Expressions between commas, up to and with `close`.
    fn separated(&mut self, close: Token<'_>, expected: &str) -> Parsed<Vec<NodeId>> {
        let mut ids = Vec::new();
        if self.accept(close).is_some() {
            return Ok(ids);
        }
        loop {
            ids.push(self.expression()?);
            if self.accept(Token::Comma).is_none() {
                self.expect(close, expected)?;
                return Ok(ids);
            }
        }
    }

    fn nested<T>(&mut self, position: Position, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth == DEPTH_MAX {
            return Err(SyntaxError::at(position, format!("nested more than {DEPTH_MAX} deep")));
        }
        self.depth += 1;
        let parsed = inner(self);
        self.depth -= 1;
        parsed
    }

    fn push(&mut self, kind: NodeKind, position: Position) -> Parsed {
        if self.nodes.len() == NODES_MAX {
            return Err(SyntaxError::at(position, format!("more than {NODES_MAX} values and operations")));
        }
        self.nodes.push(Node { kind, position });
        Ok(NodeId::new(self.nodes.len() - 1))
    }

    fn advance(&mut self) -> Option<&'t Lexeme<'s>> {
        let (first, rest) = self.lexemes.split_first()?;
        self.lexemes = rest;
        Some(first)
    }

    fn accept(&mut self, token: Token<'_>) -> Option<&'t Lexeme<'s>> {
        if self.lexemes.first()?.token == token { self.advance() } else { None }
    }

    fn expect(&mut self, token: Token<'_>, expected: &str) -> Parsed<()> {
        match self.lexemes.first() {
            Some(lexeme) if lexeme.token == token => {
                self.advance();
                Ok(())
            }
            Some(lexeme) => {
                let message = format!("expected {expected}, not '{}'", lexeme.text);
                Err(SyntaxError::at(lexeme.position, message))
            }
            None => Err(SyntaxError::at(self.end, format!("the expression ends where {expected} should follow"))),
        }
    }
}

fn binary_operator(token: Token<'_>) -> Option<BinaryOperator> {
    Some(match token {
        Token::Or => BinaryOperator::Or,
        Token::And => BinaryOperator::And,
        Token::Equal => BinaryOperator::Equal,
        Token::NotEqual => BinaryOperator::NotEqual,
        Token::Less => BinaryOperator::Less,
        Token::LessOrEqual => BinaryOperator::LessOrEqual,
        Token::Greater => BinaryOperator::Greater,
        Token::GreaterOrEqual => BinaryOperator::GreaterOrEqual,
        Token::In => BinaryOperator::In,
        Token::Plus => BinaryOperator::Add,
        Token::Minus => BinaryOperator::Subtract,
        Token::Star => BinaryOperator::Multiply,
        Token::Slash => BinaryOperator::Divide,
        Token::Percent => BinaryOperator::Remainder,
        Token::Number(_)
        | Token::Text(_)
        | Token::Name(_)
        | Token::True
        | Token::False
        | Token::Null
        | Token::ParenOpen
        | Token::ParenClose
        | Token::BracketOpen
        | Token::BracketClose
        | Token::Comma
        | Token::Question
        | Token::Colon
        | Token::Not => return None,
    })
}

fn unexpected(lexeme: &Lexeme<'_>) -> SyntaxError {
    SyntaxError::at(lexeme.position, format!("unexpected '{}'", lexeme.text))
}

fn describe(arity: &RangeInclusive<usize>) -> String {
    let plural = |count: usize| if count == 1 { "argument" } else { "arguments" };
    match (*arity.start(), *arity.end()) {
        (least, most) if least == most => format!("{least} {}", plural(least)),
        (least, usize::MAX) => format!("at least {least} {}", plural(least)),
        (least, most) => format!("{least} to {most} arguments"),
    }
}

/// The characters that a quoted string stands for.
fn unescape(quoted: &str) -> Result<String, String> {
    let inner = &quoted[1..quoted.len() - 1];
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some(same @ ('\\' | '\'' | '"' | '/')) => text.push(same),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('t') => text.push('\t'),
            Some('u') => text.push(unicode(&mut characters)?),
            Some(other) => return Err(format!("unknown escape '\\{other}'")),
            None => return Err("the string has no end".to_owned()),
        }
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("the string is longer than {TEXT_BYTES_MAX} bytes"));
    }
    Ok(text)
}

/// The character of `uXXXX`, or of the surrogate pair `uXXXX\uXXXX`, as in JSON.
fn unicode(characters: &mut Chars<'_>) -> Result<char, String> {
    let first = code_unit(characters)?;
    let followed = (0xD800..0xDC00).contains(&first).then(|| characters.as_str().strip_prefix("\\u")).flatten();
    let second = match followed {
        None => None,
        Some(rest) => {
            *characters = rest.chars();
            Some(code_unit(characters)?)
        }
    };
    match char::decode_utf16([first].into_iter().chain(second)).next() {
        Some(Ok(character)) => Ok(character),
        Some(Err(_)) | None => Err("half of a surrogate pair".to_owned()),
    }
}

fn code_unit(characters: &mut Chars<'_>) -> Result<u16, String> {
    let unit = characters
        .as_str()
        .get(..4)
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .and_then(|digits| u16::from_str_radix(digits, 16).ok())
        .ok_or_else(|| "'\\u' takes four hexadecimal digits".to_owned())?;
    *characters = characters.as_str()[4..].chars();
    Ok(unit)
}
