"""The command that opens a local page: photos in the style of paintings without a terminal."""

import os
import threading

from arbitrary_nst.errors import requires
from arbitrary_nst.web.config import ServeConfig


def serve(config: ServeConfig) -> int:
    """Serve the page until a signal ends it (KeyboardInterrupt), and remove all that was uploaded or painted.

    Raises MissingPackageError if gradio is not installed, UsageError if the port is taken, ModelFileError or
    WeightsNotFoundError if there is no such model.
    """
    with requires("serve", "web"):
        from arbitrary_nst.web.sessions import server_folder

    with server_folder() as folder:
        os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}  # read by gradio's import
        with requires("serve", "web"):
            from arbitrary_nst.web.page import Page
        page = Page(config, folder)
        try:
            url = page.open()
            print(f"The page is at {url} (Ctrl-C stops it)", flush=True)
            page.load_model()  # while the browser is already showing the page
            threading.Event().wait()
        finally:
            page.close()
    return 0
