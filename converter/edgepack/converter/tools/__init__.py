"""What is done to model files after their export, one module each, in a child process.

A new tool is one new module here with a function `run(job: ToolJob) -> ToolResult`.
"""
