//! What is told of a run: for people (Markdown and a plot) and for programs (JSON).

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::checker::Verdict;
use crate::history::{Call, Operation};
use crate::nemesis::{Fault, Kind};
use crate::plot::throughput;

/// What was run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// All draws come from it.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// How many shards.
    pub shards: u16,
    /// How many clients.
    pub clients: u64,
    /// For so many seconds there were faults.
    pub faults_for_s: u64,
    /// Which kinds.
    pub kinds: Vec<Kind>,
}

/// A fault and what clients felt of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Felt {
    /// The fault.
    #[serde(flatten)]
    pub fault: Fault,
    /// Calls answered while it lasted.
    pub ok: usize,
    /// Calls of which nobody knows what became, made while it lasted.
    pub unknown: usize,
    /// Longest time without any answer to anybody.
    pub silence_ms: u64,
    /// Longest wait for the answer to a call about a customer, all tries at all nodes included.
    pub longest_wait_ms: u64,
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What was run.
    pub run: Run,
    /// Whether everything held.
    pub passed: bool,
    /// Calls that were answered.
    pub ok: usize,
    /// Calls that were refused without effect.
    pub failed: usize,
    /// Calls of which nobody knows what became.
    pub unknown: usize,
    /// Longest wait for the answer to a call about a customer while one node that led was killed and came back.
    pub worst_failover_ms: u64,
    /// In the order in which they were injected.
    pub faults: Vec<Felt>,
    /// What held.
    pub verdicts: Vec<Verdict>,
    /// Answers in each second.
    pub per_second: Vec<usize>,
}

impl Report {
    /// Of a run that is over. O(operations · log + faults · operations).
    pub fn new(run: Run, history: &[Operation], faults: Vec<Fault>, verdicts: Vec<Verdict>) -> Report {
        let mut answers: Vec<(u64, u64)> = Vec::new();
        let mut about_customers: Vec<(u64, u64)> = Vec::new();
        let mut per_second = Vec::new();
        let mut unknown_at = Vec::new();
        for operation in history {
            if let Some((returned_us, _)) = operation.answered() {
                answers.push((returned_us, operation.invoked_us));
                if is_about_a_customer(&operation.call) {
                    about_customers.push((returned_us, operation.invoked_us));
                }
                let second = usize::try_from(returned_us / 1_000_000).unwrap_or(usize::MAX);
                per_second.resize(per_second.len().max(second + 1), 0);
                per_second[second] += 1;
            } else if operation.is_unknown() {
                unknown_at.push(operation.invoked_us);
            }
        }
        answers.sort_unstable();
        about_customers.sort_unstable();
        let felt = |fault| feel(fault, &answers, &about_customers, &unknown_at);
        let faults: Vec<Felt> = faults.into_iter().map(felt).collect();
        let is_failover = |fault: &Fault| fault.kind == Kind::Kill && fault.hit_a_leader && fault.keeps_quorum;
        let failovers = faults.iter().filter(|felt| is_failover(&felt.fault));
        Report {
            run,
            passed: verdicts.iter().all(Verdict::holds),
            ok: answers.len(),
            failed: history.len() - answers.len() - unknown_at.len(),
            unknown: unknown_at.len(),
            worst_failover_ms: failovers.map(|felt| felt.longest_wait_ms).max().unwrap_or(0),
            faults,
            verdicts,
            per_second,
        }
    }

    /// Writes `report.json`, `report.md` and `throughput.svg` into a directory.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("report.json", serde_json::to_string_pretty(self)? + "\n")?;
        let spans: Vec<_> =
            self.faults.iter().map(|felt| (felt.fault.from_us, felt.fault.until_us, felt.fault.kind)).collect();
        write("throughput.svg", throughput(&self.per_second, &spans))?;
        write("report.md", self.markdown())
    }

    /// For people.
    pub fn markdown(&self) -> String {
        self.tell().expect("memory can be written")
    }

    fn tell(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let Run { seed, nodes, shards, clients, faults_for_s, kinds } = &self.run;
        let kinds: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
        let outcome = if self.passed { "everything held" } else { "**NOT everything held**" };
        writeln!(text, "# Chaos run, seed {seed}: {outcome}\n")?;
        writeln!(
            text,
            "{nodes} nodes, {shards} shards, {clients} clients; for {faults_for_s} s these faults: {}. {} calls were answered, {} were refused \
             without effect, of {} nobody knows what became. Longest wait when one node that led was killed: {} ms.\n",
            kinds.join(", "),
            self.ok,
            self.failed,
            self.unknown,
            self.worst_failover_ms,
        )?;
        writeln!(text, "## What must hold\n\n| | Invariant | Answers examined | Violations |\n|---|---|---:|---:|")?;
        for verdict in &self.verdicts {
            let mark = if verdict.holds() { "holds" } else { "**FAILS**" };
            writeln!(text, "| {mark} | {} | {} | {} |", verdict.invariant, verdict.examined, verdict.violations)?;
        }
        for verdict in self.verdicts.iter().filter(|verdict| !verdict.holds()) {
            writeln!(text, "\n### {}\n", verdict.invariant)?;
            if let Some(why) = &verdict.undecided {
                writeln!(text, "* {why}")?;
            }
            if verdict.examined == 0 {
                writeln!(text, "* nothing was there to be examined")?;
            }
            for violation in &verdict.told {
                writeln!(text, "* {} (operations {:?})", violation.what.replace('\n', "\n  "), violation.operations)?;
            }
        }
        writeln!(text, "\n## Answers per second\n\n![Answers per second, faults shaded](throughput.svg)\n")?;
        writeln!(text, "## Faults\n")?;
        writeln!(
            text,
            "Longest wait: for the answer to one call about a customer, all its tries included, of which each lasts up to 2.5 s at a node that \
             does not answer. Silence: nobody had any answer.\n"
        )?;
        writeln!(
            text,
            "| At | Lasted | Fault | Answers | Unknown | Longest wait | Silence |\n|---:|---:|---|---:|---:|---:|---:|"
        )?;
        for Felt { fault, ok, unknown, silence_ms, longest_wait_ms } in &self.faults {
            let (at, lasted) = (fault.from_us as f64 / 1e6, (fault.until_us - fault.from_us) as f64 / 1e6);
            let (kind, what) = (fault.kind.as_str(), &fault.what);
            let led = if fault.hit_a_leader { ", a leader" } else { "" };
            writeln!(
                text,
                "| {at:.1} s | {lasted:.1} s | {kind}{led}: {what} | {ok} | {unknown} | {longest_wait_ms} ms | {silence_ms} ms |"
            )?;
        }
        Ok(text)
    }
}

/// Such calls wait for a leader only; writes of the catalogue may have to wait for leases to lapse.
fn is_about_a_customer(call: &Call) -> bool {
    match call {
        Call::Recommend { .. }
        | Call::Respond { .. }
        | Call::Repeat { .. }
        | Call::WriteProfile { .. }
        | Call::ReadProfile { .. } => true,
        Call::Create { .. }
        | Call::Exclude { .. }
        | Call::ReadBudget { .. }
        | Call::Edit { .. }
        | Call::ReadOffer { .. } => false,
    }
}

/// Answers, and those to calls about customers: when each came and when it was asked for, in the order in which they came.
fn feel(fault: Fault, answers: &[(u64, u64)], about_customers: &[(u64, u64)], unknown_at: &[u64]) -> Felt {
    let (from, until) = (fault.from_us, fault.until_us);
    let first = |of: &[(u64, u64)]| of.partition_point(|(returned, _)| *returned < from);
    let during = &answers[first(answers)..answers.partition_point(|(returned, _)| *returned <= until)];
    let mut silence_us = 0;
    let mut last = from;
    for (returned, _) in during.iter().copied().chain([(until, until)]) {
        silence_us = silence_us.max(returned - last);
        last = returned;
    }
    let overlaps = |answer: &&(u64, u64)| answer.1 <= until;
    let waits = about_customers[first(about_customers)..].iter().filter(overlaps);
    let waits = waits.map(|(returned, invoked)| returned - invoked);
    Felt {
        ok: during.len(),
        unknown: unknown_at.iter().filter(|at| (from..=until).contains(at)).count(),
        silence_ms: silence_us / 1_000,
        longest_wait_ms: waits.max().unwrap_or(0) / 1_000,
        fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answer, Outcome};

    fn operation(id: u64, invoked_ms: u64, returned_ms: Option<u64>) -> Operation {
        let answered = |returned_ms: u64| Outcome::Ok {
            sent_us: invoked_ms * 1_000,
            returned_us: returned_ms * 1_000,
            answer: Answer::Done,
        };
        let outcome = returned_ms.map_or(Outcome::Unknown, answered);
        let call = Call::ReadProfile { customer: "c".to_owned() };
        Operation { id, client: 0, invoked_us: invoked_ms * 1_000, call, outcome }
    }

    fn report() -> Report {
        let history = [
            operation(0, 0, Some(10)),
            operation(1, 990, Some(1_300)),
            operation(2, 1_000, Some(2_900)),
            operation(3, 1_100, None),
            operation(4, 2_500, Some(3_100)),
            operation(5, 3_050, Some(9_000)),
        ];
        let fault = Fault {
            kind: Kind::Kill,
            what: "node 1 killed".to_owned(),
            from_us: 1_000_000,
            until_us: 3_000_000,
            keeps_quorum: true,
            hit_a_leader: true,
        };
        let mut verdict = Verdict::new("it holds");
        verdict.examined = 6;
        let run =
            Run { seed: 7, nodes: 3, shards: 4, clients: 2, faults_for_s: 9, kinds: vec![Kind::Kill, Kind::Pause] };
        Report::new(run, &history, vec![fault], vec![verdict])
    }

    #[test]
    fn what_clients_felt_of_a_fault_is_measured_while_it_lasted() {
        let report = report();
        let felt = &report.faults[0];
        assert_eq!((felt.ok, felt.unknown, felt.silence_ms, felt.longest_wait_ms), (2, 1, 1_600, 1_900));
        assert_eq!((report.ok, report.failed, report.unknown, report.worst_failover_ms), (5, 0, 1, 1_900));
        assert_eq!(report.per_second, [1, 1, 1, 1, 0, 0, 0, 0, 0, 1]);
        assert!(report.passed);
    }

    #[test]
    fn people_and_programs_are_told_the_same() {
        let mut report = report();
        let text = report.markdown();
        assert!(text.contains("seed 7: everything held") && text.contains("| holds | it holds | 6 | 0 |"), "{text}");
        assert!(
            text.contains("| 1.0 s | 2.0 s | kill, a leader: node 1 killed | 2 | 1 | 1900 ms | 1600 ms |"),
            "{text}"
        );
        report.verdicts[0].violated("it does not".to_owned(), [3]);
        report.passed = false;
        let text = report.markdown();
        assert!(text.contains("NOT everything held") && text.contains("* it does not (operations [3])"), "{text}");
        let directory = tempfile::tempdir().unwrap();
        report.write(directory.path()).unwrap();
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(directory.path().join("report.json")).unwrap()).unwrap();
        assert_eq!(
            (&json["passed"], &json["run"]["kinds"][1], &json["faults"][0]["fromUs"]),
            (&false.into(), &"pause".into(), &1_000_000.into())
        );
        assert!(directory.path().join("throughput.svg").exists());
    }
}
