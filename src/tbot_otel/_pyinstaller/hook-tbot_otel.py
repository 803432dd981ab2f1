"""Names for PyInstaller the modules that are imported by computed names."""

from PyInstaller.utils.hooks import can_import_module, collect_submodules

from tbot_otel.otlp.environment import EXPORTER_MODULES

hiddenimports = ["tbot_otel.start", *collect_submodules("tbot_otel.pipeline")]
for protocol, module in EXPORTER_MODULES.items():
    if can_import_module(module):
        name = protocol.partition("/")[0]
        hiddenimports += [f"tbot_otel.otlp.{name}", f"{module}._log_exporter"]
