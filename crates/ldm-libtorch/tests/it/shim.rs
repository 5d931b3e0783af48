//! Each function of the C++ interface, compared with its definition.

use ldm_libtorch::{
    AdamWLists, AdamWStep, Generator, SharedModule, autocast, channels_last, checkpoint, cuda_device_count,
    cuda_memory, differentiable_gradients, forget_gradients, fused_adamw, gradients, is_autocast,
    is_channels_last, lerp_all, map_file, set_seed, set_tf32, to_channels_last, total_norm,
};
use tch::{Device, Kind, Tensor, nn};

pub(crate) fn device() -> Device {
    match std::env::var("LDM_TEST_DEVICE").as_deref() {
        Ok("cpu") | Err(_) => Device::Cpu,
        Ok(name) => {
            assert!(cuda_device_count() > 0, "LDM_TEST_DEVICE={name} and no CUDA device");
            set_tf32(false);
            Device::Cuda(name.strip_prefix("cuda:").map_or(0, |index| index.parse().unwrap()))
        }
    }
}

fn close(a: &Tensor, b: &Tensor, tolerance: f64) {
    let difference = (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[]);
    assert!(difference <= tolerance, "differs by {difference}");
}

#[test]
fn generator_equals_pythons() {
    // torch.randn(5, generator=torch.Generator().manual_seed(42)) of torch 2.11.
    let expected = [
        0.33669036626815796,
        0.12880940735340118,
        0.23446236550807953,
        0.23033303022384644,
        -1.1228563785552979,
    ];
    let drawn =
        Vec::<f64>::try_from(Generator::new(42).randn(&[5], Kind::Float).to_kind(Kind::Double)).unwrap();
    assert_eq!(drawn, expected);
    {
        let _guard = GLOBAL_GENERATOR.lock().unwrap();
        set_seed(7);
    }
    let again =
        Vec::<f64>::try_from(Generator::new(42).randn(&[5], Kind::Float).to_kind(Kind::Double)).unwrap();
    assert_eq!(again, expected, "the global generator does not matter");
    assert!(Generator::new(1).randint(10, &[100]).lt(10).all().int64_value(&[]) == 1);
    let uniform = Generator::new(1).rand(&[1000], Kind::Float);
    assert!((0.45..0.55).contains(&uniform.mean(Kind::Float).double_value(&[])));
}

#[test]
fn channels_last_keeps_values_and_convolutions_return_it() {
    let _guard = GLOBAL_GENERATOR.lock().unwrap();
    let vs = nn::VarStore::new(device());
    let conv = nn::conv2d(vs.root(), 8, 16, 3, nn::ConvConfig { padding: 1, ..nn::ConvConfig::default() });
    let x = Generator::new(0).randn(&[2, 8, 5, 7], Kind::Float).to_device(device());
    let before = x.apply(&conv);
    channels_last(&vs);
    assert!(is_channels_last(&conv.ws));
    let after = to_channels_last(&x).apply(&conv);
    assert!(is_channels_last(&after));
    close(&before, &after, 1e-5);
}

#[test]
fn a_tensor_without_strides_is_not_channels_last() {
    let sparse = Tensor::ones([2, 3, 4, 4], (Kind::Float, device())).to_sparse_sparse_dim(4);
    assert!(!is_channels_last(&sparse));
}

#[test]
fn autocast_lowers_products_inside_its_scope_only() {
    let a = Tensor::ones([4, 4], (Kind::Float, device()));
    {
        let _guard = autocast(device(), Kind::BFloat16);
        assert!(is_autocast(device()));
        assert_eq!(a.matmul(&a).kind(), Kind::BFloat16);
        {
            let _off = autocast(device(), Kind::Float);
            assert!(!is_autocast(device()));
            assert_eq!(a.matmul(&a).kind(), Kind::Float);
        }
        assert_eq!(a.matmul(&a).kind(), Kind::BFloat16);
    }
    assert_eq!(a.matmul(&a).kind(), Kind::Float);
}

/// A parameter with its state.
struct Adam {
    param: [Tensor; 1],
    exp_avg: [Tensor; 1],
    exp_avg_sq: [Tensor; 1],
    count: [Tensor; 1],
}

impl Adam {
    const STEP: AdamWStep = AdamWStep { lr: 0.1, beta1: 0.9, beta2: 0.99, weight_decay: 0.05, eps: 1e-8 };

    fn of(param: &Tensor) -> Self {
        let zeros = || [param.zeros_like()];
        let count = [Tensor::zeros([], (Kind::Float, param.device()))];
        Self { param: [param.copy()], exp_avg: zeros(), exp_avg_sq: zeros(), count }
    }

    fn step(&self, grad: &Tensor, grad_scale: Option<&Tensor>, found_inf: Option<&Tensor>) {
        let lists = AdamWLists {
            params: &self.param,
            grads: std::slice::from_ref(grad),
            exp_avgs: &self.exp_avg,
            exp_avg_sqs: &self.exp_avg_sq,
            steps: &self.count,
        };
        fused_adamw(lists, Self::STEP, grad_scale, found_inf);
    }

    fn all(&self) -> [&Tensor; 4] {
        [&self.param[0], &self.exp_avg[0], &self.exp_avg_sq[0], &self.count[0]]
    }
}

#[test]
fn adamw_follows_its_algorithm() {
    let mut generator = Generator::new(3);
    let param = generator.randn(&[7, 3], Kind::Double).to_device(device());
    let (mut w, mut m, mut v) = (param.copy(), param.zeros_like(), param.zeros_like());
    let (adam, step) = (Adam::of(&param), Adam::STEP);
    for t in 1..=5 {
        let grad = generator.randn(&[7, 3], Kind::Double).to_device(device());
        // A step with NaN gradients changes nothing and is not counted.
        let (none, one) = (Tensor::zeros_like(&adam.count[0]), Tensor::ones_like(&adam.count[0]));
        adam.step(&(&grad * f64::NAN), None, Some(&one));
        adam.step(&grad, None, Some(&none));
        w = &w * (1. - step.lr * step.weight_decay);
        m = &m * step.beta1 + &grad * (1. - step.beta1);
        v = &v * step.beta2 + &grad * &grad * (1. - step.beta2);
        let (m_hat, v_hat) = (&m / (1. - step.beta1.powi(t)), &v / (1. - step.beta2.powi(t)));
        w = &w - m_hat * step.lr / (v_hat.sqrt() + step.eps);
        close(&adam.param[0], &w, 1e-12);
    }
    assert_eq!(adam.count[0].double_value(&[]), 5.);
}

#[test]
fn adamw_divides_gradients_by_their_scale() {
    let mut generator = Generator::new(4);
    for kind in [Kind::Float, Kind::Double] {
        // 19 values: more than a vector of the CPU's kernel, and a rest.
        let mut draw = || generator.randn(&[19], kind).to_device(device());
        let param = draw();
        let (plain, scaled) = (Adam::of(&param), Adam::of(&param));
        let scale = Tensor::full([], 3., (Kind::Float, device()));
        let (none, one) = (Tensor::zeros_like(&scale), Tensor::ones_like(&scale));
        for _ in 0..5 {
            let grad = draw();
            let (divided, kept) = (&grad / 3., grad.copy());
            scaled.step(&kept, Some(&scale), Some(&one));
            assert_eq!(kept, grad, "a skipped step leaves the gradients");
            plain.step(&divided, None, Some(&none));
            scaled.step(&kept, Some(&scale), Some(&none));
            assert_eq!(kept, divided, "the gradients are divided in place");
            assert_eq!(plain.all(), scaled.all(), "the same bits as of divided gradients");
        }
        assert!((&plain.param[0] - param).abs().max().double_value(&[]) > 0.1);
    }
}

#[test]
#[should_panic(expected = "the memory format of their parameter, [2, 3, 4, 5]")]
fn adamw_refuses_a_state_in_another_order() {
    let param = Generator::new(5).randn(&[2, 3, 4, 5], Kind::Float).to_device(device());
    let mut adam = Adam::of(&param);
    let grad = to_channels_last(&param);
    adam.param = [to_channels_last(&param)];
    adam.exp_avg = [grad.zeros_like()];
    adam.step(&grad, None, None);
}

#[test]
fn forgotten_gradients_are_gone_and_the_next_are_their_own() {
    let weight = Tensor::ones([3, 2, 3, 3], (Kind::Float, device())).set_requires_grad(true);
    let unused = Tensor::ones([2], (Kind::Float, device())).set_requires_grad(true);
    let params = [weight.shallow_clone(), unused];
    let backward = |factor: f64| (weight.square().sum(Kind::Float) * factor).backward();
    backward(1.);
    let first = weight.grad();
    forget_gradients(&params);
    assert!(params.iter().all(|param| !param.grad().defined()));
    backward(3.);
    assert_eq!(weight.grad(), Tensor::full_like(&weight, 6.), "not added to the forgotten ones");
    assert_eq!(first, Tensor::full_like(&weight, 2.), "which nothing has changed");
    backward(3.);
    assert_eq!(weight.grad(), Tensor::full_like(&weight, 12.), "gradients of several passes add up");
}

#[test]
fn lerp_and_norm_over_lists() {
    let lists: Vec<Tensor> =
        (0..3).map(|seed| Generator::new(seed).randn(&[4, 2], Kind::Float).to_device(device())).collect();
    let all = Tensor::cat(&lists, 0);
    close(&total_norm(&lists), &all.norm(), 1e-5);
    let targets: Vec<Tensor> = lists.iter().map(Tensor::zeros_like).collect();
    lerp_all(&targets, &lists, 0.25);
    close(&Tensor::cat(&targets, 0), &(&all * 0.25), 1e-6);
}

/// A layer with dropout: its second run must drop the same values as the first.
fn block(layer: &nn::Linear, inputs: &[Tensor]) -> Tensor {
    (inputs[0].apply(layer).gelu("none").dropout(0.5, true) * &inputs[1]).tanh()
}

/// Lock of tests that seed libtorch's global generators, which all threads share.
static GLOBAL_GENERATOR: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn a_checkpointed_block_has_the_gradients_of_the_plain_one() {
    let vs = nn::VarStore::new(device());
    let layer = nn::linear(vs.root(), 6, 6, nn::LinearConfig::default());
    let params = [layer.ws.shallow_clone(), layer.bs.as_ref().unwrap().shallow_clone()];
    let layer = SharedModule::new(layer);
    let input = |seed, grad: bool| {
        Generator::new(seed).randn(&[9, 6], Kind::Float).to_device(device()).set_requires_grad(grad)
    };
    let _guard = GLOBAL_GENERATOR.lock().unwrap();
    let run = |checkpointed: bool| {
        let (x, y) = (input(1, true), input(2, false));
        set_seed(11);
        let out = if checkpointed {
            checkpoint(&layer, &params, &[&x, &y], block)
        } else {
            layer.with(|layer| block(layer, &[x.shallow_clone(), y.shallow_clone()]))
        };
        let after = Tensor::rand([3], (Kind::Float, device()));
        let loss = out.square().sum(Kind::Float);
        let found = gradients(&[&loss], &[&x, &params[0], &params[1]]).unwrap();
        (out.detach(), after, found)
    };
    let (plain, checkpointed) = (run(false), run(true));
    close(&plain.0, &checkpointed.0, 0.);
    close(&plain.1, &checkpointed.1, 0.);
    assert!(plain.2[1].abs().max().double_value(&[]) > 0.);
    for (a, b) in plain.2.iter().zip(&checkpointed.2) {
        close(a, b, 1e-6);
    }
}

#[test]
fn a_checkpointed_block_leaves_no_stale_casts() {
    let weight = Tensor::full([4, 4], 2., (Kind::Float, device())).set_requires_grad(true);
    let x = Tensor::ones([1, 4], (Kind::Float, device())).set_requires_grad(true);
    let (part, params) = (SharedModule::new(weight.shallow_clone()), [weight.shallow_clone()]);
    let forward = || {
        let _guard = autocast(device(), Kind::BFloat16);
        checkpoint(&part, &params, &[&x], |weight, inputs| inputs[0].matmul(weight)).sum(Kind::Float)
    };
    for value in [2., 3.] {
        let _ = tch::no_grad(|| weight.shallow_clone().fill_(value));
        let sum = forward();
        assert_eq!(sum.double_value(&[]), 16. * value, "the weights as they are now");
        sum.backward();
        assert!(weight.grad().abs().sum(Kind::Float).double_value(&[]) > 0.);
    }
}

#[test]
fn an_unused_input_has_no_gradient() {
    let x = Tensor::ones([2], (Kind::Float, device())).set_requires_grad(true);
    let other = Tensor::ones([2], (Kind::Float, device())).set_requires_grad(true);
    assert!(gradients(&[&x.sum(Kind::Float)], &[&other]).is_err());
}

#[test]
fn a_gradient_has_a_gradient() {
    let x = Tensor::from_slice(&[1_f64, -2.]).to_device(device()).set_requires_grad(true);
    let cube = x.pow_tensor_scalar(3).sum(Kind::Double);
    let first = differentiable_gradients(&[&cube], &[&x]).unwrap().remove(0); // 3x²
    let second = gradients(&[&first.sum(Kind::Double)], &[&x]).unwrap().remove(0);
    close(&second, &(&x.detach() * 6.), 0.);
    let flat = gradients(&[&cube], &[&x]).unwrap().remove(0);
    assert!(first.requires_grad() && !flat.requires_grad());
}

#[test]
fn memory_statistics_are_zero_without_cuda() {
    if cuda_device_count() == 0 {
        assert_eq!(cuda_memory(0), ldm_libtorch::CudaMemory::default());
    } else {
        let held = Tensor::ones([1 << 20], (Kind::Float, Device::Cuda(0)));
        assert!(cuda_memory(0).peak >= 4 << 20);
        drop(held);
    }
    assert!(ldm_libtorch::peak_resident_bytes() > 1 << 20);
}

#[test]
fn pages_become_tensors_once_and_within_bounds() {
    let path = std::env::temp_dir().join(format!("ldm-pages-{}", std::process::id()));
    let bytes: Vec<u8> = (0..16384_u32).flat_map(|value| (value as f32).to_le_bytes()).collect();
    std::fs::write(&path, &bytes).unwrap();
    let mapped = map_file(&path).unwrap();
    let pages = mapped.pages().unwrap();
    let mut tensor = pages.tensor(8, &[4, 1024], Kind::Float).unwrap();
    assert_eq!(tensor, (Tensor::arange(4096, (Kind::Float, Device::Cpu)) + 2.).view([4, 1024]));
    for (why, start, size, kind) in [
        ("mapped already", 16384, 1, Kind::Float),
        ("mapped in part", 0, 3, Kind::Float),
        ("beyond the file", 65532, 2, Kind::Float),
        ("far beyond it", usize::MAX - 3, 1, Kind::Float),
        ("more than any memory", 32768, i64::MAX, Kind::Double),
        ("a negative size", 32768, -1, Kind::Float),
        ("not aligned", 32770, 1, Kind::Float),
        ("nothing", 32768, 0, Kind::Float),
    ] {
        assert!(pages.tensor(start, &[size], kind).is_none(), "{why}");
    }
    // Writes are visible in this tensor alone, and its pages are released with it.
    let _ = tensor.fill_(7.);
    assert_eq!((&mapped[..], std::fs::read(&path).unwrap()), (bytes.as_slice(), bytes.clone()));
    let row = tensor.get(3);
    drop(tensor);
    drop(pages);
    assert_eq!(row.sum(Kind::Float).double_value(&[]), 7. * 1024.);
    std::fs::remove_file(&path).unwrap();
}
