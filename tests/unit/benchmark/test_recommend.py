"""What is recommended follows from the measurements alone."""

import pytest

from onnxproof.benchmark.recommend import recommend
from records import make_benchmark, make_case, make_step, make_writing

SETTINGS = {"inter_op_threads": 1, "execution_mode": "sequential", "spinning": True, "memory_arena": True}
CPU, OTHER = "CPUExecutionProvider", "OpenVINOExecutionProvider"
SHAPES = [(1, 16), (1, 128), (8, 128)]
FP32 = {1: [4.0, 20.0, 160.0], 2: [4.4, 10.0, 80.0]}


def record(times, baseline=FP32, provider=CPU):
    """A benchmark with these p50, in ms, by number of threads; ``baseline`` has fp32's, none for fp32 itself."""

    def cases(measured, compared):
        return [
            make_case(*shape, p50, compared[threads][position] if compared else None, threads)
            for threads, values in measured.items()
            for position, (shape, p50) in enumerate(zip(SHAPES, values, strict=True))
        ]

    compared = cases(baseline, None) if baseline else None
    return make_benchmark(cases=cases(times, baseline), baseline=compared, provider=provider)


def told(benchmarks):
    return [
        (choice.purpose, choice.in_float, choice.variant, choice.provider, choice.session["intra_op_threads"])
        for choice in recommend(benchmarks)
    ]


def test_the_fastest_float_file_and_the_fastest_of_all_for_each_purpose():
    benchmarks = {
        "fp32": record(FP32, None),
        "optimized": record({1: [3.9, 19.0, 150.0], 2: [4.0, 9.0, 78.0]}),
        "int8": record({1: [1.0, 8.0, 70.0], 2: [2.0, 4.2, 30.0]}),
    }
    assert told(benchmarks) == [
        ("latency", True, "optimized", CPU, 2),
        ("latency", False, "int8", CPU, 1),
        ("throughput", True, "optimized", CPU, 2),
        ("throughput", False, "int8", CPU, 2),
    ]
    latency, throughput = (choice for choice in recommend(benchmarks) if not choice.in_float)
    assert latency.speedup == pytest.approx(((4.4 / 1.0) * (10.0 / 8.0)) ** 0.5)
    assert (latency.shapes, throughput.shapes) == (("1x16", "1x128"), ("8x128",))
    assert throughput.session == {"intra_op_threads": 2} | SETTINGS
    assert throughput.speedup == pytest.approx(80 / 30)


def test_a_float_file_that_beats_int8_is_told_once():
    slow = {threads: [2 * value for value in values] for threads, values in FP32.items()}
    benchmarks = {"fp32": record(FP32, None), "int8": record(slow)}
    assert told(benchmarks) == [("latency", True, "fp32", CPU, 2), ("throughput", True, "fp32", CPU, 2)]


def test_another_provider_competes_but_not_as_exact():
    fast = record({2: [1.0, 2.0, 10.0]}, provider=OTHER)
    benchmarks = {"fp32": record(FP32, None) | {"other_providers": [fast]}}
    assert told(benchmarks) == [
        ("latency", True, "fp32", CPU, 2),
        ("latency", False, "fp32", OTHER, 2),
        ("throughput", True, "fp32", CPU, 2),
        ("throughput", False, "fp32", OTHER, 2),
    ]


def test_a_provider_with_which_answers_miss_a_limit_is_left_out():
    fast = record({2: [1.0, 2.0, 10.0]}, provider=OTHER)
    benchmarks = {"fp32": record(FP32, None) | {"other_providers": [fast]}}
    assert [choice.provider for choice in recommend(benchmarks, {("fp32", OTHER)})] == [CPU, CPU]
    assert OTHER in [choice.provider for choice in recommend(benchmarks, {("int8", OTHER), ("fp32", CPU)})]


def test_runs_on_a_busy_machine_are_compared_by_their_ratios():
    busy = {threads: [3 * value for value in values] for threads, values in FP32.items()}
    quick = {threads: [value / 2 for value in values] for threads, values in busy.items()}
    benchmarks = {"optimized": record({1: FP32[1], 2: FP32[2]}), "int8": record(quick, busy)}
    assert ("latency", False, "int8", CPU, 2) in told(benchmarks)


def test_with_one_batch_size_there_is_one_purpose():
    only_single = record(FP32, None)
    only_single["cases"] = [case for case in only_single["cases"] if case["batch"] == 1]
    assert [choice.purpose for choice in recommend({"fp32": only_single})] == ["latency"]


def test_images_have_no_length():
    images = record(FP32, None)
    images["cases"] = [case | {"sequence": None} for case in images["cases"] if case["sequence"] == 128]
    assert [choice.shapes for choice in recommend({"fp32": images})] == [("1",), ("8",)]


def test_nothing_is_recommended_where_nothing_passed():
    assert recommend({}) == []


def test_a_model_that_writes_is_chosen_by_its_next_tokens():
    def steps(first, single, batch, compared=None):
        values = {("first_token", 1, 512): first, ("next_token", 1, 128): single, ("next_token", 8, 128): batch}
        return [
            make_step(*shape, p50, compared[position] if compared else None)
            for position, (shape, p50) in enumerate(values.items())
        ]

    fp32 = (100.0, 10.0, 20.0)
    slow_reader = make_writing(steps(300.0, 2.0, 10.0, fp32), steps(*fp32))
    benchmarks = {
        "fp32": record(FP32, None) | {"generation": make_writing(steps(*fp32))},
        # Faster than q4 in every call of the ordinary cases, and in the first token.
        "int8": record({2: [0.1, 0.2, 0.3]}) | {"generation": make_writing(steps(50.0, 5.0, 30.0, fp32), steps(*fp32))},
        "q4": record({2: [9.0, 30.0, 200.0]}) | {"generation": slow_reader},
    }
    assert told(benchmarks) == [
        ("latency", True, "fp32", CPU, 2),
        ("latency", False, "q4", CPU, 2),
        ("throughput", True, "fp32", CPU, 2),
        ("throughput", False, "q4", CPU, 2),
    ]
    latency, throughput = (choice for choice in recommend(benchmarks) if not choice.in_float)
    assert (latency.shapes, latency.speedup, latency.writes) == (("1x128",), pytest.approx(5), True)
    assert (throughput.shapes, throughput.speedup) == (("8x128",), pytest.approx(2))


def test_a_writer_without_next_tokens_is_chosen_by_its_calls():
    only_prompts = {"generation": make_writing([make_step("first_token", 1, 512, 9.0)])}
    benchmarks = {"fp32": record(FP32, None) | only_prompts}
    assert [(choice.purpose, choice.shapes, choice.writes) for choice in recommend(benchmarks)] == [
        ("latency", ("1x16", "1x128"), False),
        ("throughput", ("8x128",), False),
    ]
