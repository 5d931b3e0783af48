//! Copies between host and device: the same bytes on every device.

use ldm_libtorch::{Download, Generator, pin, upload};
use tch::{Device, Kind, Tensor};

use crate::shim::device;

fn bytes(tensor: &Tensor) -> Vec<u8> {
    let flat = tensor.to_device(Device::Cpu).contiguous().flatten(0, -1).view_dtype(Kind::Uint8);
    Vec::try_from(flat).unwrap()
}

/// Tensors of several dtypes and strides: one in one piece, an image in another order, a part of a batch, one row for all.
fn tensors() -> Vec<Tensor> {
    let image = Generator::new(1).randn(&[4, 3, 5, 6], Kind::Float);
    vec![
        image.shallow_clone(),
        image.permute([0, 2, 3, 1]),
        image.narrow(0, 1, 2),
        image.narrow(3, 1, 2),
        image.narrow(0, 0, 1).expand([4, 3, 5, 6], false),
        image.to_kind(Kind::BFloat16),
        Tensor::from_slice(&[1_i64, -7, i64::MAX]),
        Tensor::from(0.5_f32),
        Tensor::zeros([0, 3], (Kind::Float, Device::Cpu)),
    ]
}

#[test]
fn bytes_arrive_as_they_were() {
    for tensor in tensors() {
        let before = bytes(&tensor);
        for source in [tensor.shallow_clone(), pin(&tensor, device())] {
            let copy = upload(&source, device());
            assert_eq!((copy.device(), copy.size(), copy.kind()), (device(), tensor.size(), tensor.kind()));
            assert_eq!(bytes(&copy), before);
            let back = Download::start(&copy).wait();
            assert_eq!(
                (back.device(), back.size(), back.kind()),
                (Device::Cpu, tensor.size(), tensor.kind())
            );
            assert_eq!(bytes(&back), before);
        }
    }
}

/// Memory of one copy must not become that of the next before the device has read it: many copies, none waited for.
#[test]
fn many_copies_in_flight_keep_their_values() {
    let copies: Vec<Tensor> = (0..200_i64)
        .map(|index| upload(&Tensor::full([1 << 14], index, (Kind::Int64, Device::Cpu)), device()))
        .collect();
    let sums: Vec<Download> = copies.iter().map(|copy| Download::start(&(copy * 2))).collect();
    for (index, sum) in sums.into_iter().enumerate() {
        let sum = sum.wait();
        assert_eq!([sum.min(), sum.max()].map(|value| value.int64_value(&[])), [2 * index as i64; 2]);
    }
}

#[test]
fn a_download_has_no_graph() {
    let weight = Tensor::ones([2], (Kind::Float, device())).set_requires_grad(true);
    assert!(!Download::start(&(&weight * 2)).wait().requires_grad());
}
