"""Sphinx's configuration: MyST's Markdown in furo, without a request to another host."""

from importlib import metadata

project = "Frieze"
release = metadata.version("frieze")
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
smartquotes = False  # --flags stay as they are typed
html_theme = "furo"
html_title = f"Frieze {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
