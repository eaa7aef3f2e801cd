//! The syntax tree, flat: nodes in post-order, so that walking it needs no recursion.

use std::fmt::{self, Write};

use super::functions::Function;
use super::names::Name;
use super::numbers;
use crate::value::Value;

/// A place in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Character in the line, from 1.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Index of a node in its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(u16);

impl NodeId {
    pub(super) fn new(index: usize) -> Self {
        NodeId(u16::try_from(index).expect("a tree has at most NODES_MAX nodes"))
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One node and where it was written.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Where: the operator of an operation, the first character of everything else.
    pub position: Position,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeKind {
    /// Number, string, boolean or null.
    Literal(Value),
    /// A name.
    Name(Name),
    /// `[a, b]`.
    List(Vec<NodeId>),
    /// `!a`, `-a`.
    Unary(UnaryOperator, NodeId),
    /// `a + b` and its like.
    Binary(BinaryOperator, NodeId, NodeId),
    /// `a ? b : c`.
    Conditional(NodeId, NodeId, NodeId),
    /// `f(a, b)`, with as many arguments as the function takes.
    Call(Function, Vec<NodeId>),
}

/// Operators before one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOperator {
    /// `!`
    Not,
    /// `-`
    Negate,
}

impl UnaryOperator {
    /// As written.
    pub fn symbol(self) -> char {
        match self {
            UnaryOperator::Not => '!',
            UnaryOperator::Negate => '-',
        }
    }
}

/// Operators between two operands, all left-associative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOperator {
    /// `||`
    Or,
    /// `&&`
    And,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `in`
    In,
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Remainder,
}

impl BinaryOperator {
    /// As written.
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOperator::Or => "||",
            BinaryOperator::And => "&&",
            BinaryOperator::Equal => "==",
            BinaryOperator::NotEqual => "!=",
            BinaryOperator::Less => "<",
            BinaryOperator::LessOrEqual => "<=",
            BinaryOperator::Greater => ">",
            BinaryOperator::GreaterOrEqual => ">=",
            BinaryOperator::In => "in",
            BinaryOperator::Add => "+",
            BinaryOperator::Subtract => "-",
            BinaryOperator::Multiply => "*",
            BinaryOperator::Divide => "/",
            BinaryOperator::Remainder => "%",
        }
    }

    /// How tightly it binds: `||` least, `* / %` most.
    pub fn precedence(self) -> u8 {
        match self {
            BinaryOperator::Or => LOOSEST,
            BinaryOperator::And => 2,
            BinaryOperator::Equal | BinaryOperator::NotEqual => 3,
            BinaryOperator::Less
            | BinaryOperator::LessOrEqual
            | BinaryOperator::Greater
            | BinaryOperator::GreaterOrEqual
            | BinaryOperator::In => 4,
            BinaryOperator::Add | BinaryOperator::Subtract => 5,
            BinaryOperator::Multiply | BinaryOperator::Divide | BinaryOperator::Remainder => 6,
        }
    }
}

/// `?:` binds less than every binary operator.
const CONDITIONAL: u8 = 0;
/// The binary operators start here.
pub(super) const LOOSEST: u8 = 1;
/// Unary operators bind more than every binary one.
const UNARY: u8 = 7;

/// A parsed expression. Two are equal if they differ in layout only.
#[derive(Clone, Debug)]
pub struct Ast {
    nodes: Vec<Node>,
}

impl Ast {
    /// `nodes` in post-order; the last one is the root.
    pub(super) fn new(nodes: Vec<Node>) -> Self {
        Ast { nodes }
    }

    /// All nodes, children before their parents.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node that the others hang from.
    pub fn root(&self) -> NodeId {
        NodeId::new(self.nodes.len() - 1)
    }

    /// One node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Every name, once per occurrence, in the order written.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.nodes.iter().filter_map(|node| if let NodeKind::Name(name) = &node.kind { Some(name) } else { None })
    }

    /// Writes `id`, in parentheses if it binds less than its surroundings ask.
    fn write(&self, id: NodeId, least: u8, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = &self.node(id).kind;
        let binds = match kind {
            NodeKind::Conditional(..) => CONDITIONAL,
            NodeKind::Binary(operator, ..) => operator.precedence(),
            NodeKind::Literal(_) | NodeKind::Name(_) | NodeKind::List(_) | NodeKind::Unary(..) | NodeKind::Call(..) => {
                UNARY
            }
        };
        if binds < least {
            out.write_char('(')?;
        }
        match kind {
            NodeKind::Literal(value) => write_literal(value, out)?,
            NodeKind::Name(name) => write!(out, "{name}")?,
            NodeKind::List(items) => {
                out.write_char('[')?;
                self.write_separated(items, out)?;
                out.write_char(']')?;
            }
            NodeKind::Unary(operator, operand) => {
                out.write_char(operator.symbol())?;
                self.write(*operand, UNARY, out)?;
            }
            NodeKind::Binary(operator, left, right) => {
                self.write(*left, binds, out)?;
                write!(out, " {} ", operator.symbol())?;
                self.write(*right, binds + 1, out)?;
            }
            NodeKind::Conditional(condition, then, otherwise) => {
                self.write(*condition, LOOSEST, out)?;
                out.write_str(" ? ")?;
                self.write(*then, CONDITIONAL, out)?;
                out.write_str(" : ")?;
                self.write(*otherwise, CONDITIONAL, out)?;
            }
            NodeKind::Call(function, arguments) => {
                write!(out, "{}(", function.name())?;
                self.write_separated(arguments, out)?;
                out.write_char(')')?;
            }
        }
        if binds < least {
            out.write_char(')')?;
        }
        Ok(())
    }

    fn write_separated(&self, ids: &[NodeId], out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, id) in ids.iter().enumerate() {
            if index > 0 {
                out.write_str(", ")?;
            }
            self.write(*id, CONDITIONAL, out)?;
        }
        Ok(())
    }
}

impl PartialEq for Ast {
    fn eq(&self, other: &Self) -> bool {
        self.nodes.len() == other.nodes.len()
            && self.nodes.iter().zip(&other.nodes).all(|(mine, theirs)| mine.kind == theirs.kind)
    }
}

impl fmt::Display for Ast {
    /// Canonical layout: one space around binary operators, no needless parentheses. Parses back to an equal tree.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(self.root(), CONDITIONAL, f)
    }
}

fn write_literal(value: &Value, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value {
        Value::Bool(flag) => write!(out, "{flag}"),
        Value::Number(number) => numbers::write_exact(*number, out),
        Value::Text(text) => {
            out.write_char('"')?;
            for character in text.chars() {
                match character {
                    '"' => out.write_str("\\\"")?,
                    '\\' => out.write_str("\\\\")?,
                    '\n' => out.write_str("\\n")?,
                    '\r' => out.write_str("\\r")?,
                    '\t' => out.write_str("\\t")?,
                    other => out.write_char(other)?,
                }
            }
            out.write_char('"')
        }
        // Lists have nodes of their own, and there is no way to write a map.
        Value::Null | Value::List(_) | Value::Map(_) => out.write_str("null"),
    }
}
