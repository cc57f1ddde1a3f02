"""TensorRT's objects where the driver does not fit; the texts are those of real TensorRT 11.4."""

import gc
import weakref

import pytest

from finedge.errors import SystemProblem
from finedge.runtime.trt import factory
from finedge.runtime.trt.factory import create
from finedge.runtime.trt.log import collected, logger

OLD_DRIVER = (
    "createInferRuntime: Error Code 6: API Usage Error "
    "(CUDA initialization failure with error: 35 In checkCudaInstallation)"
)
OTHER_FAULT = "CUDA initialization failure with error: 999"


def refused(make, trt):
    with pytest.raises(SystemProblem) as caught:
        create(make, trt=trt)
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_real_objects_are_created_without_a_gpu(rtx):
    trt = rtx.trt
    builder = create(trt.Builder, trt=trt)
    network = builder.create_network(1)
    assert isinstance(create(trt.OnnxParser, network, trt=trt), trt.OnnxParser)
    assert isinstance(create(trt.Runtime, trt=trt), trt.Runtime)


class HalfMade:
    """What `Runtime(logger)` returned after error 35: every use ends the process."""


def test_an_object_whose_creation_logged_an_error_is_never_used(rtx):
    made = []

    def runtime(process_logger):
        process_logger.log(1, OLD_DRIVER)
        instance = HalfMade()
        made.append(weakref.ref(instance))
        return instance

    assert OLD_DRIVER in refused(runtime, rtx.trt)
    gc.collect()
    assert made[0]() is not None


def test_a_null_factory_is_a_typed_error(rtx):
    def builder(process_logger):
        process_logger.log(1, OTHER_FAULT)
        raise TypeError("pybind11::init(): factory function returned nullptr")

    text = refused(builder, rtx.trt)
    assert f"tensorrt_rtx {rtx.version} cannot create its builder: {OTHER_FAULT}" in text
    assert "finedge doctor" in text


def test_wrong_arguments_stay_a_bug(rtx):
    with pytest.raises(TypeError, match="incompatible constructor arguments"):
        create(rtx.trt.OnnxParser, "no network", trt=rtx.trt)


def old_driver(process_logger):
    process_logger.log(1, OLD_DRIVER)


@pytest.mark.parametrize(
    ("driver", "advice"),
    [
        (0, "none is loaded\n  to do: install an NVIDIA driver"),
        (
            12,
            "this one supports CUDA 12\n  to do: update the driver, or install the build for "
            "CUDA 12: pip uninstall tensorrt_rtx tensorrt_rtx_cu13 tensorrt_rtx_cu13_bindings "
            "tensorrt_rtx_cu13_libs; pip install tensorrt_rtx_cu12==",
        ),
    ],
)
def test_the_build_of_the_drivers_cuda_is_named(rtx, monkeypatch, driver, advice):
    monkeypatch.setattr(factory, "driver_version", lambda: 1000 * driver)
    text = refused(old_driver, rtx.trt)
    assert f"expected: an NVIDIA driver for CUDA 13 or newer; {advice}" in text
    assert "cuda-bindings" not in text


@pytest.mark.parametrize("cuda", [0, 12], ids=["of a JetPack", "of the driver's CUDA"])
def test_where_no_other_build_helps_the_driver_is_to_be_updated(rtx, monkeypatch, cuda):
    monkeypatch.setattr(factory, "driver_version", lambda: 12060)
    monkeypatch.setattr(factory, "cuda_major", lambda module: cuda)
    assert "install the JetPack that this TensorRT is part of" in refused(old_driver, rtx.trt)


def test_messages_of_a_creation_stay_out_of_the_collection_around_it(rtx):
    def builder(process_logger):
        process_logger.log(3, "detail")
        return object()

    with collected(rtx.trt) as outer:
        assert create(builder, trt=rtx.trt)
        logger(rtx.trt).log(3, "ours")
    assert list(outer) == ["ours"]
