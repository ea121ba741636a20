"""From episode rows to tidy frames, intervals, tables, figures and reports. Imports of muvla: records and config
only."""
