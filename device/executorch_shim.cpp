/* C interface to one ExecuTorch program, for ctypes: no torch, no Python headers.
 *
 * A program has one float32 input and one float32 output of fixed shape. Everything runs on the
 * calling thread. A handle must not be used by two threads at once.
 * Errors are negative: -1..-999 is minus ExecuTorch's own code (runtime/core/error.h). */
#include <executorch/extension/data_loader/buffer_data_loader.h>
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/extension/threadpool/threadpool_guard.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace {

using executorch::aten::ScalarType;
using executorch::extension::BufferDataLoader;
using executorch::extension::Module;
using executorch::extension::threadpool::NoThreadPoolGuard;
using executorch::runtime::Error;

enum Failure { kNotFloat32 = -1001, kWrongSize = -1002 };

struct Handle {
  std::vector<uint8_t> bytes; /* the program points into them */
  Module module;
  std::vector<executorch::aten::SizesType> shape;
  int outputs = 0; /* values in the output */
  std::vector<float> input;
  executorch::extension::TensorPtr tensor;

  Handle(const uint8_t* data, size_t size)
      : bytes(data, data + size),
        module(std::make_unique<BufferDataLoader>(bytes.data(), bytes.size())) {}
};

int failed(Error error) { return -static_cast<int>(error); }

} // namespace

extern "C" {

/* Load a program from `size` bytes (copied); *out is the handle, valid only when 0 is returned. */
int embridge_open(const uint8_t* data, size_t size, void** out) {
  NoThreadPoolGuard one_thread;
  auto program = std::make_unique<Handle>(data, size);
  /* damaged bytes must give an error, never a wild pointer */
  Error error =
      program->module.load(executorch::runtime::Program::Verification::InternalConsistency);
  if (error != Error::Ok) return failed(error);
  error = program->module.load_method("forward");
  if (error != Error::Ok) return failed(error);
  auto method = program->module.method_meta("forward");
  if (!method.ok()) return failed(method.error());
  auto input = method->input_tensor_meta(0), output = method->output_tensor_meta(0);
  if (!input.ok()) return failed(input.error());
  if (!output.ok()) return failed(output.error());
  if (input->scalar_type() != ScalarType::Float || output->scalar_type() != ScalarType::Float)
    return kNotFloat32;
  program->shape.assign(input->sizes().begin(), input->sizes().end());
  program->input.resize(input->nbytes() / sizeof(float));
  program->outputs = static_cast<int>(output->nbytes() / sizeof(float));
  program->tensor = executorch::extension::from_blob(program->input.data(), program->shape);
  *out = program.release();
  return 0;
}

/* Write the sizes of the input's axes, at most `room`; return the number of axes. */
int embridge_input_shape(const void* handle, int32_t* sizes, int room) {
  const auto& shape = static_cast<const Handle*>(handle)->shape;
  for (size_t axis = 0; axis < shape.size() && axis < static_cast<size_t>(room); ++axis)
    sizes[axis] = shape[axis];
  return static_cast<int>(shape.size());
}

/* Number of values in the output. */
int embridge_output_values(const void* handle) { return static_cast<const Handle*>(handle)->outputs; }

/* x [values_in] contiguous float32, in the input's shape; y [values_out] float32.
 * Both counts must be those of the program; returns 0. */
int embridge_run(void* handle, const float* x, int values_in, float* y, int values_out) {
  auto* program = static_cast<Handle*>(handle);
  if (static_cast<size_t>(values_in) != program->input.size() || values_out != program->outputs)
    return kWrongSize;
  std::memcpy(program->input.data(), x, sizeof(float) * program->input.size());
  NoThreadPoolGuard one_thread;
  auto result = program->module.forward(program->tensor);
  if (!result.ok()) return failed(result.error());
  const auto output = result->at(0).toTensor();
  if (output.numel() != values_out) return kWrongSize;
  std::memcpy(y, output.const_data_ptr<float>(), sizeof(float) * values_out);
  return 0;
}

void embridge_close(void* handle) { delete static_cast<Handle*>(handle); }
}
