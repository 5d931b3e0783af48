//! Seconds, memory and operations of something that is run again and again.

use std::time::Instant;

use ldm_core::device::peak_memory;
use ldm_libtorch::{Operation, count_operations, reset_cuda_peak};
use serde::Serialize;
use tch::{Cuda, Device};

use super::machine::Machine;

/// Until what was asked of a GPU is done.
pub(super) fn wait(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

/// What is timed: a name, the shape of what goes in, and what it is made of.
#[derive(Debug, Clone)]
pub(super) struct What {
    pub(super) stage: &'static str,
    pub(super) shape: Vec<i64>,
    /// Steps of sampling or training in one run; none where there is no such thing.
    pub(super) steps: Option<usize>,
    pub(super) parameters: usize,
    pub(super) weight_bytes: usize,
}

/// What was seen of it.
pub(super) struct Row {
    what: What,
    /// In rising order.
    seconds: Vec<f64>,
    operations: Vec<Operation>,
    peak_memory: u64,
}

impl Row {
    /// Runs it twice to warm up, the second time counting what it does, and then `repeats` times against the clock.
    pub(super) fn measure(
        what: What,
        repeats: u64,
        device: Device,
        run: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        reset_peak(device);
        run()?;
        let (ran, operations) = count_operations(&mut *run);
        ran?;
        wait(device);
        let mut seconds = Vec::new();
        for _ in 0..repeats {
            let begun = Instant::now();
            run()?;
            wait(device);
            seconds.push(begun.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        Ok(Self { what, seconds, operations, peak_memory: peak_memory(device) })
    }

    /// The same beside what the machine can do.
    pub(super) fn against(self, machine: &Machine, device: Device) -> Measured {
        let Self { what, seconds, operations, peak_memory } = self;
        let middle = seconds.len() / 2;
        let median = if seconds.len() % 2 == 1 {
            seconds[middle]
        } else {
            f64::midpoint(seconds[middle - 1], seconds[middle])
        };
        let flop: i64 = operations.iter().map(|each| each.flop).sum();
        let roof: f64 = operations.iter().map(|each| machine.roof(each.flop, each.bytes)).sum();
        let mut operations: Vec<Done> = operations
            .into_iter()
            .map(|Operation { name, calls, flop, bytes, seconds }| {
                // On a GPU it only says how long it took to ask for it.
                let seconds = (device == Device::Cpu).then_some(seconds);
                let name = name.trim_start_matches("aten::").to_owned();
                Done { name, calls, flop, bytes, seconds, roof_seconds: machine.roof(flop, bytes) }
            })
            .collect();
        operations.sort_by(|a, b| b.cost().total_cmp(&a.cost()));
        Measured {
            stage: what.stage,
            images_per_second: what.shape[0] as f64 / median,
            steps_per_second: what.steps.map(|steps| steps as f64 / median),
            shape: what.shape,
            repeats: seconds.len(),
            median_seconds: median,
            min_seconds: seconds[0],
            parameters: what.parameters,
            weight_bytes: what.weight_bytes,
            flop,
            bytes: operations.iter().map(|each| each.bytes).sum(),
            flop_per_second: flop as f64 / median,
            of_matrix_product: flop as f64 / median / machine.matrix_product_flop_per_second,
            roof_seconds: roof,
            peak_memory,
            operations,
        }
    }
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) stage: &'static str,
    pub(super) shape: Vec<i64>,
    pub(super) repeats: usize,
    pub(super) median_seconds: f64,
    pub(super) min_seconds: f64,
    pub(super) images_per_second: f64,
    pub(super) steps_per_second: Option<f64>,
    pub(super) parameters: usize,
    pub(super) weight_bytes: usize,
    pub(super) flop: i64,
    pub(super) bytes: i64,
    pub(super) flop_per_second: f64,
    pub(super) of_matrix_product: f64,
    /// What its operations would take, one after the other, each at the machine's speed.
    pub(super) roof_seconds: f64,
    /// Of the process on the CPU, of the allocator on CUDA; bytes, 0 where unknown.
    pub(super) peak_memory: u64,
    /// The costliest first.
    pub(super) operations: Vec<Done>,
}

/// All calls of one operation.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    pub(super) name: String,
    pub(super) calls: i64,
    pub(super) flop: i64,
    pub(super) bytes: i64,
    pub(super) seconds: Option<f64>,
    pub(super) roof_seconds: f64,
}

impl Done {
    fn cost(&self) -> f64 {
        self.seconds.unwrap_or(self.roof_seconds)
    }
}

fn reset_peak(device: Device) {
    if let Device::Cuda(index) = device {
        reset_cuda_peak(index);
    } else {
        // Linux' word for "the peak begins now" (proc(5)); where it is not heeded the peak is that of the process so far.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }
}
