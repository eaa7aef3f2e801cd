//! Type errors that can be known before any value is.

use std::fmt;

use super::ast::{Ast, BinaryOperator, Node, NodeId, NodeKind, Position, UnaryOperator};
use super::functions::Function;
use super::names::Name;
use crate::value::Value;

/// What is known of a value. Null is a member of every type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Type {
    /// Nothing is known.
    Any,
    /// A number.
    Number,
    /// A string.
    Text,
    /// A boolean.
    Bool,
    /// A list.
    List,
    /// Always null.
    Null,
}

impl Type {
    /// Whether a value of this type can be one of `other`.
    pub fn fits(self, other: Type) -> bool {
        self == other || matches!(self, Type::Any | Type::Null) || matches!(other, Type::Any | Type::Null)
    }

    /// What a value is that comes from either side.
    fn join(self, other: Type) -> Type {
        match (self, other) {
            (Type::Null, known) | (known, Type::Null) => known,
            (left, right) if left == right => left,
            _ => Type::Any,
        }
    }

    /// The type of a value.
    pub fn of(value: &Value) -> Type {
        match value {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Number(_) => Type::Number,
            Value::Text(_) => Type::Text,
            Value::List(_) => Type::List,
            Value::Map(_) => Type::Any,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Any => "any value",
            Type::Number => "number",
            Type::Text => "string",
            Type::Bool => "boolean",
            Type::List => "list",
            Type::Null => "null",
        })
    }
}

/// An operation on values that it never takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct TypeError {
    /// Line, from 1.
    pub line: u32,
    /// Character in the line, from 1.
    pub column: u32,
    /// What is wrong, as a lower-case sentence without a full stop.
    pub message: String,
}

/// The type of `ast`, given those of its names. Linear in the tree.
///
/// # Errors
/// Every operation that could never yield anything but null (or, for `==` and `!=`, always the same), in the order of the
/// source's operations.
pub fn check(ast: &Ast, types: &dyn Fn(&Name) -> Type) -> Result<Type, Vec<TypeError>> {
    let mut checker = Checker { ast, known: Vec::with_capacity(ast.nodes().len()), errors: Vec::new() };
    for node in ast.nodes() {
        let found = checker.infer(node, types);
        checker.known.push(found);
    }
    if checker.errors.is_empty() { Ok(checker.known[ast.root().index()]) } else { Err(checker.errors) }
}

struct Checker<'a> {
    ast: &'a Ast,
    /// Types of the nodes so far; children come before their parents.
    known: Vec<Type>,
    errors: Vec<TypeError>,
}

impl Checker<'_> {
    fn infer(&mut self, node: &Node, types: &dyn Fn(&Name) -> Type) -> Type {
        match &node.kind {
            NodeKind::Literal(value) => Type::of(value),
            NodeKind::Name(name) => types(name),
            NodeKind::List(_) => Type::List,
            NodeKind::Unary(UnaryOperator::Not, operand) => {
                self.require(*operand, &[Type::Bool], "'!'");
                Type::Bool
            }
            NodeKind::Unary(UnaryOperator::Negate, operand) => {
                self.require(*operand, &[Type::Number], "'-'");
                Type::Number
            }
            NodeKind::Binary(operator, left, right) => self.infer_binary(*operator, *left, *right, node.position),
            NodeKind::Conditional(condition, then, otherwise) => {
                self.require(*condition, &[Type::Bool], "'?:'");
                self.known(*then).join(self.known(*otherwise))
            }
            NodeKind::Call(function, arguments) => self.infer_call(*function, arguments),
        }
    }

    fn infer_binary(&mut self, operator: BinaryOperator, left: NodeId, right: NodeId, position: Position) -> Type {
        let quoted = format!("'{}'", operator.symbol());
        match operator {
            BinaryOperator::Or | BinaryOperator::And => {
                self.require(left, &[Type::Bool], &quoted);
                self.require(right, &[Type::Bool], &quoted);
                Type::Bool
            }
            BinaryOperator::Equal | BinaryOperator::NotEqual => {
                self.require_alike(left, right, &quoted, position);
                Type::Bool
            }
            BinaryOperator::Less
            | BinaryOperator::LessOrEqual
            | BinaryOperator::Greater
            | BinaryOperator::GreaterOrEqual => {
                if self.require(left, NUMBER_OR_TEXT, &quoted) && self.require(right, NUMBER_OR_TEXT, &quoted) {
                    self.require_alike(left, right, &quoted, position);
                }
                Type::Bool
            }
            BinaryOperator::In => {
                self.require(right, &[Type::List], "the right side of 'in'");
                Type::Bool
            }
            BinaryOperator::Add => {
                if self.require(left, NUMBER_OR_TEXT, &quoted) && self.require(right, NUMBER_OR_TEXT, &quoted) {
                    self.require_alike(left, right, &quoted, position);
                }
                match (self.known(left), self.known(right)) {
                    (Type::Number, _) | (_, Type::Number) => Type::Number,
                    (Type::Text, _) | (_, Type::Text) => Type::Text,
                    _ => Type::Any,
                }
            }
            BinaryOperator::Subtract
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Remainder => {
                self.require(left, &[Type::Number], &quoted);
                self.require(right, &[Type::Number], &quoted);
                Type::Number
            }
        }
    }

    fn infer_call(&mut self, function: Function, arguments: &[NodeId]) -> Type {
        for (index, argument) in arguments.iter().enumerate() {
            self.require(*argument, function.accepts(index), function.name());
        }
        if let (Function::Contains, [whole, part]) = (function, arguments)
            && self.known(*whole) == Type::Text
        {
            self.require(*part, &[Type::Text], "contains in a string");
        }
        function.yields().unwrap_or_else(|| {
            arguments.iter().map(|argument| self.known(*argument)).reduce(Type::join).unwrap_or(Type::Null)
        })
    }

    fn known(&self, id: NodeId) -> Type {
        self.known[id.index()]
    }

    /// Notes an error unless the value of `id` can be one of `accepted`.
    fn require(&mut self, id: NodeId, accepted: &[Type], taker: &str) -> bool {
        let found = self.known(id);
        let fits = accepted.iter().any(|accepted| found.fits(*accepted));
        if !fits {
            let accepted: Vec<String> = accepted.iter().map(Type::to_string).collect();
            let message = format!("{taker} takes a {}, not a {found}", accepted.join(" or "));
            self.note(self.ast.node(id).position, message);
        }
        fits
    }

    /// Notes an error unless both sides can be of one type.
    fn require_alike(&mut self, left: NodeId, right: NodeId, operator: &str, position: Position) {
        let (left, right) = (self.known(left), self.known(right));
        if !left.fits(right) {
            self.note(position, format!("{operator} between a {left} and a {right}"));
        }
    }

    fn note(&mut self, position: Position, message: String) {
        self.errors.push(TypeError { line: position.line, column: position.column, message });
    }
}

const NUMBER_OR_TEXT: &[Type] = &[Type::Number, Type::Text];
