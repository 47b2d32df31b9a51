"""What models are fed: texts, images and sounds, calibration inputs, and the recorded reference."""
