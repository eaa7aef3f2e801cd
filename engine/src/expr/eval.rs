//! Running a [`Program`]. Nothing throws: what can not be computed is null.

use std::borrow::Cow;
use std::cmp::Ordering;

use smallvec::SmallVec;

use super::ast::{BinaryOperator, UnaryOperator};
use super::compare;
use super::compile::{Instruction, Program};
use super::functions::Function;
use super::limits::{LIST_DEPTH_MAX, LIST_VALUES_MAX, TEXT_BYTES_MAX};
use super::numbers;
use crate::keys::Slot;
use crate::time::Timestamp;
use crate::value::Value;

/// Where a program's inputs come from. What is missing is null.
pub trait Environment {
    /// A fact of the request or the profile.
    fn fact(&self, slot: Slot) -> &Value;

    /// A field of the offer at hand, by the index that the resolver gave it.
    fn offer(&self, field: u16) -> Value;

    /// The time of the decision.
    fn now(&self) -> Timestamp;
}

/// An operand in flight. Copied freely: what needs an owner is lent by program and environment, or kept by the machine.
#[derive(Clone, Copy)]
enum Operand<'a> {
    Null,
    Bool(bool),
    Number(f64),
    /// Text, list or map of a constant or a fact.
    Lent(&'a Value),
    /// Text, list or map that the machine holds.
    Kept(usize),
}

impl<'a> Operand<'a> {
    fn lent(value: &'a Value) -> Self {
        match value {
            Value::Null => Operand::Null,
            Value::Bool(flag) => Operand::Bool(*flag),
            Value::Number(number) => Operand::Number(*number),
            Value::Text(_) | Value::List(_) | Value::Map(_) => Operand::Lent(value),
        }
    }

    fn truth(self) -> Option<bool> {
        if let Operand::Bool(flag) = self { Some(flag) } else { None }
    }
}

/// A stack of operands. Programs that need more of it than this are rare, and then it moves to the heap.
struct Machine<'a> {
    stack: SmallVec<[Operand<'a>; 16]>,
    kept: SmallVec<[Value; 2]>,
}

impl<'a> Machine<'a> {
    fn pop(&mut self) -> Operand<'a> {
        self.stack.pop().expect("compiled code pushes every operand before the operation that takes it")
    }

    fn push(&mut self, value: Value) {
        let operand = match value {
            Value::Null => Operand::Null,
            Value::Bool(flag) => Operand::Bool(flag),
            Value::Number(number) => Operand::Number(number),
            Value::Text(_) | Value::List(_) | Value::Map(_) => {
                self.kept.push(value);
                Operand::Kept(self.kept.len() - 1)
            }
        };
        self.stack.push(operand);
    }

    fn value(&self, operand: Operand<'a>) -> Cow<'_, Value> {
        match operand {
            Operand::Null => Cow::Owned(Value::Null),
            Operand::Bool(flag) => Cow::Owned(Value::Bool(flag)),
            Operand::Number(number) => Cow::Owned(Value::Number(number)),
            Operand::Lent(value) => Cow::Borrowed(value),
            Operand::Kept(index) => Cow::Borrowed(&self.kept[index]),
        }
    }

    fn unary(&mut self, operator: UnaryOperator) {
        let operand = self.pop();
        let result = unary(operator, &self.value(operand));
        self.push(result);
    }

    fn binary(&mut self, operator: BinaryOperator) {
        let right = self.pop();
        let left = self.pop();
        let result = match (left, right) {
            (Operand::Number(left), Operand::Number(right)) => numeric(operator, left, right),
            _ => match operator {
                BinaryOperator::Or => either(true, left.truth(), right.truth()),
                BinaryOperator::And => either(false, left.truth(), right.truth()),
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
                | BinaryOperator::Remainder => binary(operator, &self.value(left), &self.value(right)),
            },
        };
        self.push(result);
    }

    fn call(&mut self, function: Function, count: usize, now: Timestamp) {
        let base = self.stack.len() - count;
        let arguments: SmallVec<[Cow<'_, Value>; 4]> =
            self.stack[base..].iter().map(|operand| self.value(*operand)).collect();
        let result = function.apply(&arguments, now);
        drop(arguments);
        self.stack.truncate(base);
        self.push(result);
    }

    fn list(&mut self, count: usize) {
        let base = self.stack.len() - count;
        let items = self.stack[base..].iter().map(|operand| self.value(*operand).into_owned()).collect();
        self.stack.truncate(base);
        self.push(Value::List(items));
    }
}

impl Program {
    /// The value of the expression. Linear in the code; allocates only where text or a list is made.
    pub fn eval<E: Environment + ?Sized>(&self, environment: &E) -> Value {
        let mut machine = Machine { stack: SmallVec::new(), kept: SmallVec::new() };
        let mut next = 0;
        while let Some(instruction) = self.code().get(next) {
            next += 1;
            match *instruction {
                Instruction::Constant(index) => {
                    machine.stack.push(Operand::lent(&self.constants()[usize::from(index)]));
                }
                Instruction::Fact(slot) => machine.stack.push(Operand::lent(environment.fact(slot))),
                Instruction::Offer(field) => machine.push(environment.offer(field)),
                Instruction::Unary(operator) => machine.unary(operator),
                Instruction::Binary(operator) => machine.binary(operator),
                Instruction::List(count) => machine.list(usize::from(count)),
                Instruction::Call(function, count) => machine.call(function, usize::from(count), environment.now()),
                Instruction::KeepIf(decided, target) => {
                    if machine.stack.last().and_then(|top| top.truth()) == Some(decided) {
                        next = usize::from(target);
                    }
                }
                Instruction::KeepIfPresent(target) => {
                    if matches!(machine.stack.last(), Some(Operand::Null)) {
                        machine.stack.pop();
                    } else {
                        next = usize::from(target);
                    }
                }
                Instruction::JumpUnlessTrue(target) => {
                    if machine.pop().truth() != Some(true) {
                        next = usize::from(target);
                    }
                }
                Instruction::Jump(target) => next = usize::from(target),
            }
        }
        let result = machine.pop();
        let result = machine.value(result);
        if may_be_yielded(&result) { result.into_owned() } else { Value::Null }
    }
}

/// Whether a value is within what expressions yield. O([`LIST_VALUES_MAX`]).
pub(super) fn may_be_yielded(value: &Value) -> bool {
    if let Value::Text(text) = value {
        return text.len() <= TEXT_BYTES_MAX;
    }
    takes_at_most(value, LIST_DEPTH_MAX, &mut { LIST_VALUES_MAX })
}

/// Whether a list or object holds no more than so many values, no deeper than this; what it holds is counted off.
fn takes_at_most(value: &Value, depth: usize, left: &mut usize) -> bool {
    let mut fits = |inner: &Value| {
        *left = left.checked_sub(1)?;
        takes_at_most(inner, depth - 1, left).then_some(())
    };
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => true,
        Value::List(_) | Value::Map(_) if depth == 0 => false,
        Value::List(items) => items.iter().try_for_each(&mut fits).is_some(),
        Value::Map(members) => members.values().try_for_each(fits).is_some(),
    }
}

/// Applies a unary operator.
pub(super) fn unary(operator: UnaryOperator, operand: &Value) -> Value {
    match (operator, operand) {
        (UnaryOperator::Not, Value::Bool(flag)) => Value::Bool(!flag),
        (UnaryOperator::Negate, Value::Number(number)) => numbers::value(-number),
        _ => Value::Null,
    }
}

/// Applies a binary operator to both its operands.
pub(super) fn binary(operator: BinaryOperator, left: &Value, right: &Value) -> Value {
    if let (Value::Number(left), Value::Number(right)) = (left, right) {
        return numeric(operator, *left, *right);
    }
    match operator {
        BinaryOperator::Or => either(true, truth(left), truth(right)),
        BinaryOperator::And => either(false, truth(left), truth(right)),
        BinaryOperator::Equal => both(left, right, |left, right| Some(compare::equal(left, right))),
        BinaryOperator::NotEqual => both(left, right, |left, right| Some(!compare::equal(left, right))),
        BinaryOperator::Less => ordered(left, right, Ordering::is_lt),
        BinaryOperator::LessOrEqual => ordered(left, right, Ordering::is_le),
        BinaryOperator::Greater => ordered(left, right, Ordering::is_gt),
        BinaryOperator::GreaterOrEqual => ordered(left, right, Ordering::is_ge),
        BinaryOperator::In => {
            both(left, right, |left, right| right.as_list().map(|list| compare::has_member(list, left)))
        }
        BinaryOperator::Add => match (left, right) {
            (Value::Text(left), Value::Text(right)) if left.len() + right.len() <= TEXT_BYTES_MAX => {
                Value::text([&**left, &**right].concat())
            }
            _ => Value::Null,
        },
        BinaryOperator::Subtract | BinaryOperator::Multiply | BinaryOperator::Divide | BinaryOperator::Remainder => {
            Value::Null
        }
    }
}

/// Applies a binary operator to numbers. Division by zero is infinite or NaN, and so null.
fn numeric(operator: BinaryOperator, left: f64, right: f64) -> Value {
    match operator {
        BinaryOperator::Or | BinaryOperator::And | BinaryOperator::In => Value::Null,
        BinaryOperator::Equal => Value::Bool(left == right),
        BinaryOperator::NotEqual => Value::Bool(left != right),
        BinaryOperator::Less => Value::Bool(left < right),
        BinaryOperator::LessOrEqual => Value::Bool(left <= right),
        BinaryOperator::Greater => Value::Bool(left > right),
        BinaryOperator::GreaterOrEqual => Value::Bool(left >= right),
        BinaryOperator::Add => numbers::value(left + right),
        BinaryOperator::Subtract => numbers::value(left - right),
        BinaryOperator::Multiply => numbers::value(left * right),
        BinaryOperator::Divide => numbers::value(left / right),
        BinaryOperator::Remainder => numbers::value(left % right),
    }
}

fn truth(value: &Value) -> Option<bool> {
    if let Value::Bool(flag) = value { Some(*flag) } else { None }
}

/// Three-valued `||` and `&&`: `decisive` on either side decides, else anything but booleans leaves it open.
fn either(decisive: bool, left: Option<bool>, right: Option<bool>) -> Value {
    match (left, right) {
        (Some(left), _) if left == decisive => Value::Bool(decisive),
        (_, Some(right)) if right == decisive => Value::Bool(decisive),
        (Some(_), Some(_)) => Value::Bool(!decisive),
        _ => Value::Null,
    }
}

fn both(left: &Value, right: &Value, holds: impl FnOnce(&Value, &Value) -> Option<bool>) -> Value {
    if left.is_null() || right.is_null() {
        return Value::Null;
    }
    holds(left, right).map_or(Value::Null, Value::Bool)
}

fn ordered(left: &Value, right: &Value, holds: fn(Ordering) -> bool) -> Value {
    compare::order(left, right).map_or(Value::Null, |order| Value::Bool(holds(order)))
}
