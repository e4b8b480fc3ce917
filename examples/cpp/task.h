// A bundle's graph with one task, by onnxruntime's native adapter: token ids to logits.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

class Task {
 public:
  // model: the bundle's graph that the adapter is for; `edgetune tasks export-adapter` names it.
  Task(const std::string& model, const std::string& adapter, bool exact_int8)
      : adapter_(Ort::LoraAdapter::CreateLoraAdapter(adapter.c_str(), nullptr)) {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
    options.AddConfigEntry("optimization.disable_specified_optimizers", "SkipLayerNormFusion");  // slower on a CPU
    if (exact_int8) options.AddConfigEntry("session.x64quantprecision", "1");  // x86 without VNNI: sums overflow
    session_ = Ort::Session(env_, model.c_str(), options);
    for (size_t i = 0; i < session_.GetInputCount(); ++i)
      takes_.push_back(session_.GetInputNameAllocated(i, allocator_).get());
    run_.AddActiveLoraAdapter(adapter_);
  }

  // The logits of one text. [begin, end) is what the task's pooling reads: (0, n) is "mean", (0, 1) "cls".
  std::vector<float> logits(std::vector<int64_t> ids, int64_t begin, int64_t end) {
    const auto length = static_cast<int64_t>(ids.size());
    std::vector<int64_t> ones(ids.size(), 1), zeros(ids.size(), 0), span{begin, end}, row{0};
    const std::vector<int64_t> text{1, length}, one_span{1, 1, 2}, one{1};
    std::vector<const char*> names;
    std::vector<Ort::Value> values;
    const auto feed = [&](const char* name, std::vector<int64_t>& data, const std::vector<int64_t>& shape) {
      if (std::find(takes_.begin(), takes_.end(), name) == takes_.end()) return;  // older graphs take fewer inputs
      names.push_back(name);
      values.push_back(Ort::Value::CreateTensor(memory_, data.data(), data.size(), shape.data(), shape.size()));
    };
    feed("input_ids", ids, text);
    feed("attention_mask", ones, text);
    feed("token_type_ids", zeros, text);
    feed("spans", span, one_span);
    feed("task_index", row, one);
    const char* outputs[] = {"logits"};
    auto answer = session_.Run(run_, names.data(), values.data(), values.size(), outputs, 1);
    const float* found = answer[0].GetTensorData<float>();
    return {found, found + answer[0].GetTensorTypeAndShapeInfo().GetElementCount()};
  }

 private:
  Ort::Env env_{ORT_LOGGING_LEVEL_ERROR, "edgetune"};
  Ort::AllocatorWithDefaultOptions allocator_;
  Ort::MemoryInfo memory_ = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  Ort::LoraAdapter adapter_;
  Ort::RunOptions run_;
  Ort::Session session_{nullptr};
  std::vector<std::string> takes_;
};

// Probabilities of the labels of a task that gives one label.
inline std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  const double most = *std::max_element(logits.begin(), logits.end());
  std::vector<double> scores;
  double sum = 0;
  for (const float logit : logits) sum += scores.emplace_back(std::exp((logit - most) / temperature));
  for (double& score : scores) score /= sum;
  return scores;
}
