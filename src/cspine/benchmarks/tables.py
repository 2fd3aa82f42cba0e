"""What each benchmark prints, by name."""

from argparse import Namespace
from pathlib import Path

from cspine.config import Config


def benchmark_text(args: Namespace, config: Config) -> str:
    """The table of the benchmark `args.what`; only its own module is loaded, as some need torch and some do not."""
    processes = max(args.processes)
    if args.what == "decode":
        from cspine.benchmarks.decoding import decode_table

        return decode_table(args.study, config.preprocess, args.rounds, args.processes)
    if args.what == "memory":
        from cspine.benchmarks.memory import memory_table

        return memory_table(args.study[0], config.preprocess)
    if args.what == "loader":
        from cspine.benchmarks.loader import loader_table

        return loader_table(config, args.rounds)
    if args.what == "inference":
        from cspine.benchmarks.inference import inference_table

        return inference_table(config, args.rounds)
    if args.what == "kernel":
        from cspine.benchmarks.kernel_cost import kernel_table

        return kernel_table(args.study, Path(config.paths.oof), args.rounds, processes)
    if args.what == "localise":
        from cspine.benchmarks.localise import localise_table

        return localise_table(args.runs, config)
    if args.what == "lesions":
        from cspine.benchmarks.lesion_member import lesion_member_table

        return lesion_member_table(args.runs, config)
    if args.what == "aggregations":
        from cspine.benchmarks.aggregations import aggregations_table

        return aggregations_table(args.runs, config)
    if args.what == "bones":
        from cspine.benchmarks.bones import bones_table

        return bones_table(args.runs, config, args.studies)
    if args.what == "activations":
        from cspine.benchmarks.activations import activations_table

        return activations_table(config)
    if args.what == "heads":
        from cspine.benchmarks.heads import heads_table

        return heads_table(args.runs, config, args.rounds)
    if args.what == "learnable":
        from cspine.benchmarks.learnable import learnable_table

        return learnable_table(args.patients, args.seed, processes, args.learn_from)
    if args.what == "shortcuts":
        from cspine.benchmarks.shortcuts import shortcuts_table

        root = None if config.data.root is None else Path(config.data.root)
        return shortcuts_table(root, args.studies, args.seed, processes)
    if args.what == "realism":
        from cspine.benchmarks.realism import realism_table

        return realism_table(args.study)
    if args.what == "blend":
        from cspine.benchmarks.blending import blend_table

        return blend_table(threads=processes)
    from cspine.benchmarks.reading import reading_table, size_table

    return f"{size_table()}\n{reading_table(config, seconds=float(args.rounds))}"
