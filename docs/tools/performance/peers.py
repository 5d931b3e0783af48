"""diffusers' networks in the shapes of `ldm`'s, with random weights, and a call of each.

Parameters and floating-point operations are the same numbers as `ldm`'s: flop.py counts them.
"""
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel


def unet(batch, channels, tokens, width, model, dtype):
    """A call on 64x64 latents, the training size."""
    x, t = torch.randn(batch, channels, 64, 64, dtype=dtype), torch.full((batch,), 500)
    context = torch.randn(batch, tokens, width, dtype=dtype)
    return model, lambda: model(x, t, context).sample


def stable_diffusion(batch, model=None, dtype=torch.float32):
    """configs/models/stable-diffusion/v1.yaml."""
    model = model or UNet2DConditionModel(
        sample_size=64, in_channels=4, out_channels=4, cross_attention_dim=768,
        attention_head_dim=8,  # which diffusers reads as the number of heads
        block_out_channels=(320, 640, 1280, 1280),
    ).eval()
    return unet(batch, 4, 77, 768, model, dtype)


def imagenet(batch, model=None, dtype=torch.float32):
    """configs/models/latent-diffusion/imagenet.yaml (LDM-4, cin256): one attention head with all channels."""
    attends = "CrossAttnDownBlock2D"
    model = model or UNet2DConditionModel(
        sample_size=64, in_channels=3, out_channels=3, cross_attention_dim=512, attention_head_dim=1,
        block_out_channels=(192, 384, 576, 960),
        down_block_types=("DownBlock2D", attends, attends, attends),
        up_block_types=(*3 * ("CrossAttnUpBlock2D",), "UpBlock2D"),
    ).eval()
    return unet(batch, 3, 1, 512, model, dtype)


def decoder(batch, model=None, dtype=torch.float32, side=64):
    """configs/models/autoencoder/kl-f8.yaml: latents of side `side`; 64 gives 512x512 pixels."""
    model = model or AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(128, 256, 512, 512), layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, sample_size=512,
    ).eval()
    z = torch.randn(batch, 4, side, side, dtype=dtype)
    return model, lambda: model.decode(z).sample


MODELS = {"stable-diffusion": stable_diffusion, "imagenet": imagenet, "decoder": decoder}


class Traced(torch.nn.Module):
    """A network whose call returns a tensor, for programs that read its graph."""

    def __init__(self, model, method):
        super().__init__()
        self.model, self.method = model, method

    def forward(self, *inputs):
        return getattr(self.model, self.method)(*inputs, return_dict=False)[0]


def traced(name, batch):
    """A network as a module of positional inputs, and the inputs of the call of `MODELS`."""
    model, _ = MODELS[name](batch)
    if name == "decoder":
        return Traced(model, "decode"), (torch.randn(batch, 4, 64, 64),)
    channels, tokens, width = (4, 77, 768) if name == "stable-diffusion" else (3, 1, 512)
    inputs = torch.randn(batch, channels, 64, 64), torch.full((batch,), 500), torch.randn(batch, tokens, width)
    return Traced(model, "forward"), inputs


def parameters(name, model):
    """Parameters of the part that runs: of an autoencoder, the decoder."""
    parts = [model.decoder, model.post_quant_conv] if name == "decoder" else [model]
    return sum(weight.numel() for part in parts for weight in part.parameters())
