//! Running a [`Program`]. Nothing throws: what can not be computed is null.

use std::borrow::Cow;
use std::cmp::Ordering;

use smallvec::SmallVec;

use super::ast::{BinaryOperator, UnaryOperator};
use super::compare;
use super::compile::{Instruction, Program};
use super::functions;
use super::limits::TEXT_BYTES_MAX;
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

    /// The value of another expression, such as a computed field, by the index that the resolver gave it.
    fn expression(&self, index: u16) -> Value;

    /// The time of the decision.
    fn now(&self) -> Timestamp;
}

/// Operands in flight. Deeper programs than this are rare, and then it moves to the heap.
type Stack<'a> = SmallVec<[Cow<'a, Value>; 16]>;

impl Program {
    /// The value of the expression. Linear in the code; allocates only where text or a list is made.
    pub fn eval<E: Environment + ?Sized>(&self, environment: &E) -> Value {
        let mut stack = Stack::new();
        let mut next = 0;
        while let Some(instruction) = self.code().get(next) {
            next += 1;
            match *instruction {
                Instruction::Constant(index) => stack.push(Cow::Borrowed(&self.constants()[usize::from(index)])),
                Instruction::Fact(slot) => stack.push(Cow::Borrowed(environment.fact(slot))),
                Instruction::Offer(field) => stack.push(Cow::Owned(environment.offer(field))),
                Instruction::Expression(index) => stack.push(Cow::Owned(environment.expression(index))),
                Instruction::Unary(operator) => {
                    let operand = pop(&mut stack);
                    stack.push(Cow::Owned(unary(operator, &operand)));
                }
                Instruction::Binary(operator) => {
                    let right = pop(&mut stack);
                    let left = pop(&mut stack);
                    stack.push(Cow::Owned(binary(operator, &left, &right)));
                }
                Instruction::List(count) => {
                    let items = stack.drain(stack.len() - usize::from(count)..).map(Cow::into_owned).collect();
                    stack.push(Cow::Owned(Value::List(items)));
                }
                Instruction::Call(function, count) => {
                    let base = stack.len() - usize::from(count);
                    let result = function.apply(&stack[base..], environment.now());
                    stack.truncate(base);
                    stack.push(Cow::Owned(result));
                }
                Instruction::KeepIf(decided, target) => {
                    if stack.last().is_some_and(|top| **top == Value::Bool(decided)) {
                        next = usize::from(target);
                    }
                }
                Instruction::KeepIfPresent(target) => {
                    if stack.last().is_some_and(|top| !top.is_null()) {
                        next = usize::from(target);
                    } else {
                        stack.pop();
                    }
                }
                Instruction::JumpUnlessTrue(target) => {
                    if *pop(&mut stack) != Value::Bool(true) {
                        next = usize::from(target);
                    }
                }
                Instruction::Jump(target) => next = usize::from(target),
            }
        }
        let result = pop(&mut stack);
        let too_long = result.as_text().is_some_and(|text| text.len() > TEXT_BYTES_MAX);
        if too_long { Value::Null } else { result.into_owned() }
    }
}

fn pop<'a>(stack: &mut Stack<'a>) -> Cow<'a, Value> {
    stack.pop().expect("compiled code pushes every operand before the operation that takes it")
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
    match operator {
        BinaryOperator::Or => either(true, left, right),
        BinaryOperator::And => either(false, left, right),
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
            (Value::Number(left), Value::Number(right)) => numbers::value(left + right),
            (Value::Text(left), Value::Text(right)) if left.len() + right.len() <= TEXT_BYTES_MAX => {
                functions::short([&**left, &**right].concat())
            }
            _ => Value::Null,
        },
        BinaryOperator::Subtract => arithmetic(left, right, |left, right| left - right),
        BinaryOperator::Multiply => arithmetic(left, right, |left, right| left * right),
        BinaryOperator::Divide => arithmetic(left, right, |left, right| left / right),
        BinaryOperator::Remainder => arithmetic(left, right, |left, right| left % right),
    }
}

/// Three-valued `||` and `&&`: `decisive` on either side decides, else anything but booleans leaves it open.
fn either(decisive: bool, left: &Value, right: &Value) -> Value {
    match (left, right) {
        (Value::Bool(left), _) if *left == decisive => Value::Bool(decisive),
        (_, Value::Bool(right)) if *right == decisive => Value::Bool(decisive),
        (Value::Bool(_), Value::Bool(_)) => Value::Bool(!decisive),
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

/// Division by zero is infinite or NaN, and so null.
fn arithmetic(left: &Value, right: &Value, apply: impl FnOnce(f64, f64) -> f64) -> Value {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => numbers::value(apply(*left, *right)),
        _ => Value::Null,
    }
}
