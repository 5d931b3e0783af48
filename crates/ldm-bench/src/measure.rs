//! Seconds, memory and operations of a repeated computation.

use std::time::Instant;

use ldm_core::Result;
use ldm_core::device::peak_memory;
use ldm_libtorch::{Operation, count_operations};
use serde::Serialize;
use tch::{Cuda, Device};

use crate::machine::Roofline;
use crate::reset_peak;

/// Waits until the GPU is done.
pub fn wait(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

/// Description of a stage: its name, the shape of its input, its size.
#[derive(Debug, Clone)]
pub(crate) struct StageInfo {
    pub(crate) stage: &'static str,
    pub(crate) shape: Vec<i64>,
    /// Steps of sampling or training in one run.
    pub(crate) steps: Option<usize>,
    pub(crate) parameters: usize,
    pub(crate) weight_bytes: usize,
}

/// Raw measurements of a stage.
pub(crate) struct StageRun {
    what: StageInfo,
    /// In ascending order.
    seconds: Vec<f64>,
    operations: Vec<Operation>,
    peak_memory: u64,
}

impl StageRun {
    /// Runs a computation twice to warm up, counting its operations the second time, then `repeats` times for timing.
    pub(crate) fn measure(
        what: StageInfo,
        repeats: u64,
        device: Device,
        run: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Self> {
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

    /// Returns the measurements relative to the roofline of the machine.
    pub(crate) fn against(self, machine: &Roofline, device: Device) -> StageTiming {
        let Self { what, seconds, operations, peak_memory } = self;
        let middle = seconds.len() / 2;
        let median = if seconds.len() % 2 == 1 {
            seconds[middle]
        } else {
            f64::midpoint(seconds[middle - 1], seconds[middle])
        };
        let flop: i64 = operations.iter().map(|each| each.flop).sum();
        let roof: f64 = operations.iter().map(|each| machine.roof(each.flop, each.bytes)).sum();
        let mut operations: Vec<OperationTiming> = operations
            .into_iter()
            .map(|Operation { name, calls, flop, bytes, seconds }| {
                // On a GPU this is only the time of the launch.
                let seconds = (device == Device::Cpu).then_some(seconds);
                let name = name.trim_start_matches("aten::").to_owned();
                OperationTiming { name, calls, flop, bytes, seconds, roof_seconds: machine.roof(flop, bytes) }
            })
            .collect();
        operations.sort_by(|a, b| b.cost().total_cmp(&a.cost()));
        StageTiming {
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

/// Timing of a stage.
#[derive(Debug, Serialize)]
pub struct StageTiming {
    /// Its name.
    pub stage: &'static str,
    /// The shape of its input.
    pub shape: Vec<i64>,
    /// Timed runs.
    pub repeats: usize,
    /// Median of the runs.
    pub median_seconds: f64,
    /// The fastest run.
    pub min_seconds: f64,
    /// Throughput of the median run.
    pub images_per_second: f64,
    /// Steps of sampling or training per second.
    pub steps_per_second: Option<f64>,
    /// Parameters involved.
    pub parameters: usize,
    /// Bytes of these parameters.
    pub weight_bytes: usize,
    /// Floating-point operations.
    pub flop: i64,
    /// Bytes read and written.
    pub bytes: i64,
    /// Arithmetic throughput of the median run.
    pub flop_per_second: f64,
    /// Its share of the machine's matrix product.
    pub of_matrix_product: f64,
    /// Seconds of its operations, one after the other, each at the roofline.
    pub roof_seconds: f64,
    /// Peak memory in bytes: of the process on the CPU, of the allocator on CUDA; 0 where unknown.
    pub peak_memory: u64,
    /// The most expensive first.
    pub operations: Vec<OperationTiming>,
}

/// All calls of an operation.
#[derive(Debug, Serialize)]
pub struct OperationTiming {
    /// Its name, without `aten::`.
    pub name: String,
    /// Number of calls.
    pub calls: i64,
    /// Floating-point operations.
    pub flop: i64,
    /// Bytes read and written.
    pub bytes: i64,
    /// Seconds of all calls; none on a GPU.
    pub seconds: Option<f64>,
    /// Seconds at the roofline.
    pub roof_seconds: f64,
}

impl OperationTiming {
    fn cost(&self) -> f64 {
        self.seconds.unwrap_or(self.roof_seconds)
    }
}
