//! A tree to flat code: names become slots, literal parts become their values.

use std::borrow::Cow;

use super::ast::{Ast, BinaryOperator, NodeId, NodeKind, UnaryOperator};
use super::eval::{binary, unary};
use super::functions::Function;
use super::names::Name;
use crate::keys::Slot;
use crate::time::Timestamp;
use crate::value::Value;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A fact of the request or the profile.
    Fact(Slot),
    /// A field of the offer, by an index of the caller's.
    Offer(u16),
    /// A value that is the same in every decision; null for an unknown name.
    Constant(Value),
}

/// Resolves names while compiling.
pub trait Resolver {
    /// What `name` stands for. Asked once per occurrence, in the order of the source.
    fn resolve(&mut self, name: &Name) -> Source;
}

/// One step of a program. Jumps go forward only, so a program always ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Instruction {
    /// Push a constant.
    Constant(u16),
    /// Push a fact.
    Fact(Slot),
    /// Push a field of the offer.
    Offer(u16),
    /// Pop one, push the result.
    Unary(UnaryOperator),
    /// Pop two, push the result.
    Binary(BinaryOperator),
    /// Pop so many, push a list of them.
    List(u16),
    /// Pop so many, push the result.
    Call(Function, u16),
    /// If the top is this boolean, keep it and jump.
    KeepIf(bool, u16),
    /// If the top is not null, keep it and jump, else pop it.
    KeepIfPresent(u16),
    /// Pop; jump unless it was true.
    JumpUnlessTrue(u16),
    /// Jump.
    Jump(u16),
}

/// A compiled expression. Equal programs have equal values in equal environments.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    code: Vec<Instruction>,
    constants: Vec<Value>,
    facts: Vec<Slot>,
    offer_fields: Vec<u16>,
    reads_time: bool,
}

impl Program {
    /// Whether its value can differ from offer to offer: it reads a field of the offer.
    pub fn reads_offer(&self) -> bool {
        !self.offer_fields.is_empty()
    }

    /// Whether its value depends on the time of the decision.
    pub fn reads_time(&self) -> bool {
        self.reads_time
    }

    /// The facts it reads, ascending, each once.
    pub fn facts(&self) -> &[Slot] {
        &self.facts
    }

    /// The offer fields it reads, ascending, each once.
    pub fn offer_fields(&self) -> &[u16] {
        &self.offer_fields
    }

    /// Its value, if that is known without an environment.
    pub fn constant(&self) -> Option<&Value> {
        match self.code[..] {
            [Instruction::Constant(index)] => self.constants.get(usize::from(index)),
            _ => None,
        }
    }

    pub(super) fn code(&self) -> &[Instruction] {
        &self.code
    }

    pub(super) fn constants(&self) -> &[Value] {
        &self.constants
    }
}

/// Compiles `ast`. Whatever parses compiles; operations that [`check`](super::check()) would refuse yield null.
pub fn compile(ast: &Ast, resolver: &mut dyn Resolver) -> Program {
    compile_with(ast, resolver, Folding::On)
}

/// Whether parts without names are computed while compiling. Off exists so that a test can compare.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Folding {
    On,
    #[cfg_attr(not(test), expect(dead_code, reason = "tests compare the two"))]
    Off,
}

pub(super) fn compile_with(ast: &Ast, resolver: &mut dyn Resolver, folding: Folding) -> Program {
    let mut parts = Vec::with_capacity(ast.nodes().len());
    for node in ast.nodes() {
        let part = match &node.kind {
            NodeKind::Literal(value) => Part::Known(value.clone()),
            NodeKind::Name(name) => match resolver.resolve(name) {
                Source::Constant(value) => Part::Known(value),
                Source::Fact(slot) => Part::Read(Instruction::Fact(slot)),
                Source::Offer(field) => Part::Read(Instruction::Offer(field)),
            },
            operation @ (NodeKind::List(_)
            | NodeKind::Unary(..)
            | NodeKind::Binary(..)
            | NodeKind::Conditional(..)
            | NodeKind::Call(..)) => match folding {
                Folding::On => fold(operation, &parts).map_or(Part::Computed, Part::Known),
                Folding::Off => Part::Computed,
            },
        };
        parts.push(part);
    }
    let mut emitter = Emitter { ast, parts, code: Vec::new(), constants: Vec::new() };
    emitter.emit(ast.root());
    emitter.finish()
}

/// What compiling knows of a node.
enum Part {
    /// Its value.
    Known(Value),
    /// It is one read.
    Read(Instruction),
    /// It must be computed.
    Computed,
}

/// The value of an operation, if its operands determine it.
fn fold(operation: &NodeKind, parts: &[Part]) -> Option<Value> {
    let known = |id: NodeId| match &parts[id.index()] {
        Part::Known(value) => Some(value),
        Part::Read(_) | Part::Computed => None,
    };
    let all = |ids: &[NodeId]| ids.iter().map(|id| known(*id).map(Cow::Borrowed)).collect::<Option<Vec<_>>>();
    match operation {
        NodeKind::Literal(_) | NodeKind::Name(_) => None,
        NodeKind::List(items) => Some(Value::List(all(items)?.into_iter().map(Cow::into_owned).collect())),
        NodeKind::Unary(operator, operand) => Some(unary(*operator, known(*operand)?)),
        NodeKind::Binary(operator, left, right) => match (known(*left), known(*right)) {
            (Some(left), Some(right)) => Some(binary(*operator, left, right)),
            (Some(operand), None) | (None, Some(operand)) => absorb(*operator, operand),
            (None, None) => None,
        },
        NodeKind::Conditional(condition, then, otherwise) => {
            known(if *known(*condition)? == Value::Bool(true) { *then } else { *otherwise }).cloned()
        }
        NodeKind::Call(function, _) if function.reads_time() => None,
        NodeKind::Call(function, arguments) => Some(function.apply(&all(arguments)?, Timestamp::default())),
    }
}

/// The value of an operation that one operand decides whatever the other one is.
fn absorb(operator: BinaryOperator, operand: &Value) -> Option<Value> {
    let decides = match operator {
        BinaryOperator::Or => *operand == Value::Bool(true),
        BinaryOperator::And => *operand == Value::Bool(false),
        BinaryOperator::Equal
        | BinaryOperator::NotEqual
        | BinaryOperator::Less
        | BinaryOperator::LessOrEqual
        | BinaryOperator::Greater
        | BinaryOperator::GreaterOrEqual
        | BinaryOperator::In
        | BinaryOperator::Add
        | BinaryOperator::Subtract
        | BinaryOperator::Multiply
        | BinaryOperator::Divide
        | BinaryOperator::Remainder => operand.is_null(),
    };
    decides.then(|| operand.clone())
}

struct Emitter<'a> {
    ast: &'a Ast,
    parts: Vec<Part>,
    code: Vec<Instruction>,
    constants: Vec<Value>,
}

impl Emitter<'_> {
    fn emit(&mut self, id: NodeId) {
        match &self.parts[id.index()] {
            Part::Known(value) => {
                let value = value.clone();
                self.emit_constant(value);
            }
            Part::Read(instruction) => self.code.push(*instruction),
            Part::Computed => self.emit_operation(id),
        }
    }

    fn emit_constant(&mut self, value: Value) {
        let index = self.constants.iter().position(|constant| *constant == value).unwrap_or_else(|| {
            self.constants.push(value);
            self.constants.len() - 1
        });
        self.code.push(Instruction::Constant(small(index)));
    }

    fn emit_operation(&mut self, id: NodeId) {
        let ast = self.ast;
        match &ast.node(id).kind {
            // Both are parts that need no computing.
            NodeKind::Literal(_) | NodeKind::Name(_) => {}
            NodeKind::List(items) => {
                self.emit_all(items);
                self.code.push(Instruction::List(small(items.len())));
            }
            NodeKind::Unary(operator, operand) => {
                self.emit(*operand);
                self.code.push(Instruction::Unary(*operator));
            }
            NodeKind::Binary(operator, left, right) => {
                self.emit(*left);
                let decisive = match operator {
                    BinaryOperator::Or => Some(self.reserve(|target| Instruction::KeepIf(true, target))),
                    BinaryOperator::And => Some(self.reserve(|target| Instruction::KeepIf(false, target))),
                    BinaryOperator::Equal
                    | BinaryOperator::NotEqual
                    | BinaryOperator::Less
                    | BinaryOperator::LessOrEqual
                    | BinaryOperator::Greater
                    | BinaryOperator::GreaterOrEqual
                    | BinaryOperator::In
                    | BinaryOperator::Add
                    | BinaryOperator::Subtract
                    | BinaryOperator::Multiply
                    | BinaryOperator::Divide
                    | BinaryOperator::Remainder => None,
                };
                self.emit(*right);
                self.code.push(Instruction::Binary(*operator));
                if let Some(jump) = decisive {
                    self.land(jump);
                }
            }
            NodeKind::Conditional(condition, then, otherwise) => self.emit_conditional(*condition, *then, *otherwise),
            NodeKind::Call(Function::Coalesce, arguments) => {
                let Some((last, others)) = arguments.split_last() else { return };
                let mut jumps = Vec::with_capacity(others.len());
                for argument in others {
                    self.emit(*argument);
                    jumps.push(self.reserve(Instruction::KeepIfPresent));
                }
                self.emit(*last);
                jumps.into_iter().for_each(|jump| self.land(jump));
            }
            NodeKind::Call(function, arguments) => {
                self.emit_all(arguments);
                self.code.push(Instruction::Call(*function, small(arguments.len())));
            }
        }
    }

    fn emit_all(&mut self, ids: &[NodeId]) {
        for id in ids {
            self.emit(*id);
        }
    }

    fn emit_conditional(&mut self, condition: NodeId, then: NodeId, otherwise: NodeId) {
        if let Part::Known(value) = &self.parts[condition.index()] {
            let taken = if *value == Value::Bool(true) { then } else { otherwise };
            return self.emit(taken);
        }
        self.emit(condition);
        let to_otherwise = self.reserve(Instruction::JumpUnlessTrue);
        self.emit(then);
        let to_end = self.reserve(Instruction::Jump);
        self.land(to_otherwise);
        self.emit(otherwise);
        self.land(to_end);
    }

    /// Emits a jump whose target [`land`](Self::land) will fill in.
    fn reserve(&mut self, jump: fn(u16) -> Instruction) -> Jump {
        let at = self.code.len();
        self.code.push(jump(0));
        Jump { at, to: jump }
    }

    fn land(&mut self, jump: Jump) {
        self.code[jump.at] = (jump.to)(small(self.code.len()));
    }

    fn finish(self) -> Program {
        let (mut facts, mut offer_fields) = (Vec::new(), Vec::new());
        let mut reads_time = false;
        for instruction in &self.code {
            match *instruction {
                Instruction::Fact(slot) => facts.push(slot),
                Instruction::Offer(field) => offer_fields.push(field),
                Instruction::Call(function, _) => reads_time |= function.reads_time(),
                Instruction::Constant(_)
                | Instruction::Unary(_)
                | Instruction::Binary(_)
                | Instruction::List(_)
                | Instruction::KeepIf(..)
                | Instruction::KeepIfPresent(_)
                | Instruction::JumpUnlessTrue(_)
                | Instruction::Jump(_) => {}
            }
        }
        Program {
            code: self.code,
            constants: self.constants,
            facts: distinct(facts),
            offer_fields: distinct(offer_fields),
            reads_time,
        }
    }
}

/// A jump that is emitted and not yet aimed.
struct Jump {
    at: usize,
    to: fn(u16) -> Instruction,
}

fn distinct<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort_unstable();
    items.dedup();
    items
}

/// Counts of a program: at most two instructions a node, so they fit with room to spare.
fn small(count: usize) -> u16 {
    u16::try_from(count).expect("a program is smaller than 2 × NODES_MAX")
}
