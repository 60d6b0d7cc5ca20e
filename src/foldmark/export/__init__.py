"""One net to take away: exported to ONNX, compared with torch, and used without torch."""
