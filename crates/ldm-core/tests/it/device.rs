//! Devices and dtypes by name.

use ldm_core::Error;
use ldm_core::device::{device_name, fast_dtype, parse_device, parse_dtype, parse_dtype_for, test_device};
use tch::{Device, Kind, Tensor};

#[test]
fn names_of_devices() {
    assert_eq!(parse_device("cpu").unwrap(), Device::Cpu);
    for word in ["gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda: 0", "", "mps"] {
        let error = parse_device(word).unwrap_err();
        assert!(matches!(error, Error::Device(_)));
        let expected = format!("device: expected auto, cpu, cuda or cuda:N, got {word}");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_missing_gpu_is_an_error() {
    let count = ldm_libtorch::cuda_device_count();
    let beyond = format!("cuda:{count}");
    let message = parse_device(&beyond).unwrap_err().to_string();
    assert!(message.contains(&beyond), "{message}");
    if count == 0 {
        assert!(message.starts_with("device: expected a working CUDA device"), "{message}");
        assert!(parse_device("cuda").is_err());
        assert_eq!(parse_device("auto").unwrap(), Device::Cpu);
    } else {
        assert_eq!(parse_device("cuda").unwrap(), Device::Cuda(0));
        assert_eq!(parse_device("auto").unwrap(), Device::Cuda(0));
    }
    assert!(parse_device("cuda:99999999999999999999").is_err());
}

#[test]
fn the_dtype_auto_is_that_of_the_device() {
    use ldm_libtorch::kernels::{has_amx, has_bf16_products};
    let expected = if has_amx() || has_bf16_products() { Kind::BFloat16 } else { Kind::Float };
    assert_eq!(fast_dtype(Device::Cpu).unwrap(), expected);
    assert_eq!(parse_dtype_for("auto", test_device()).unwrap(), fast_dtype(test_device()).unwrap());
    assert_eq!(parse_dtype_for("f16", Device::Cpu).unwrap(), Kind::Half);
    assert_eq!(parse_dtype_for("f32", Device::Cuda(0)).unwrap(), Kind::Float, "the device is not asked");
    let message = parse_dtype_for("fp16", Device::Cpu).unwrap_err().to_string();
    assert_eq!(message, "dtype: expected f32, bf16 or f16, got fp16");
    // Nor does a missing GPU become f32.
    let missing = Device::Cuda(ldm_libtorch::cuda_device_count());
    let message = fast_dtype(missing).unwrap_err().to_string();
    assert!(message.starts_with("dtype: expected the compute capability of cuda:"), "{message}");
}

#[test]
fn a_chosen_gpu_computes_f32_in_full() {
    let device = test_device();
    // One part in 4096 does not fit the 10 bits of a TF32 mantissa.
    let (value, options) = (1. + 1. / 4096., (Kind::Float, device));
    let image = Tensor::full([1, 32, 8, 8], value, options);
    let weight = Tensor::ones([32, 32, 3, 3], options);
    let filtered = image.conv2d(&weight, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1);
    let product = Tensor::full([32, 32], value, options).matmul(&Tensor::ones([32, 32], options));
    for (got, terms) in [(filtered, 288.), (product, 32.)] {
        assert!((got - terms * value).abs().max().double_value(&[]) < 1e-3);
    }
}

#[test]
fn names_round_trip() {
    for device in [Device::Cpu, Device::Cuda(3)] {
        assert_eq!(device_name(device), if device == Device::Cpu { "cpu" } else { "cuda:3" });
    }
    let kinds = ["f32", "bf16", "f16"].map(|name| parse_dtype(name).unwrap());
    assert_eq!(kinds, [Kind::Float, Kind::BFloat16, Kind::Half]);
    assert_eq!(parse_dtype("fp16").unwrap_err().to_string(), "dtype: expected f32, bf16 or f16, got fp16");
}
