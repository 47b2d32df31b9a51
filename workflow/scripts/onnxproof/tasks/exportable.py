"""What Optimum's ONNX exporter knows: model types, what each takes, and the tasks that it exports them for.

A copy of its registry, so that a model it cannot export is refused before anything is downloaded, by steps that do not
have Optimum. A test holds it against the installed exporter. Tasks are spelled as Optimum spells them; the forms with
a cache are left out.
"""


def _types(names: str) -> frozenset[str]:
    return frozenset(names.split())


#: task → the values of ``model_type`` in config.json that the exporter knows for it.
EXPORTABLE: dict[str, frozenset[str]] = {
    "audio-classification": _types(
        """
        audio-spectrogram-transformer data2vec-audio hubert sew sew-d unispeech unispeech-sat
        wav2vec2 wav2vec2-conformer wavlm whisper
        """
    ),
    "audio-frame-classification": _types(
        """
        data2vec-audio unispeech-sat wav2vec2 wav2vec2-conformer wavlm
        """
    ),
    "audio-xvector": _types(
        """
        data2vec-audio unispeech-sat wav2vec2 wav2vec2-conformer wavlm
        """
    ),
    "automatic-speech-recognition": _types(
        """
        data2vec-audio hubert mctct moonshine sew sew-d speech_to_text unispeech unispeech-sat
        wav2vec2 wav2vec2-conformer wavlm whisper
        """
    ),
    "depth-estimation": _types(
        """
        dpt glpn
        """
    ),
    "feature-extraction": _types(
        """
        albert arcee audio-spectrogram-transformer bart beit bert big_bird bigbird_pegasus
        blenderbot blenderbot-small bloom camembert chinese_clip clip clip_vision_model codegen
        cohere colpali convbert convnext convnextv2 cvt data2vec-audio data2vec-text data2vec-vision
        deberta deberta-v2 decision_transformer deepseek_v3 deit detr dinov2 distilbert donut-swin
        dpt efficientnet electra esm falcon flaubert gemma gemma2 gemma3 gemma3_text glm glpn gpt2
        gpt_bigcode gpt_neo gpt_neox gpt_oss gptj granite groupvit helium hiera hubert ibert
        imagegpt layoutlm layoutlmv3 levit lilt llama longformer longt5 m2m_100 marian markuplm
        maskformer mbart mctct megatron-bert metaclip_2 mgp-str mistral mobilebert mobilenet_v1
        mobilenet_v2 mobilevit modernbert moonshine mpnet mpt mt5 nemotron nystromformer olmo olmo2
        opt owlv2 owlvit patchtsmixer patchtst pegasus phi phi3 poolformer pvt qwen2 qwen3 qwen3_moe
        regnet rembert resnet roberta roformer sam segformer sew sew-d siglip siglip-text
        siglip-text-with-projection siglip_vision_model smollm3 speech_to_text splinter squeezebert
        stablelm swin swin2sr swinv2 t5 table-transformer trocr unispeech unispeech-sat visual_bert
        vit vit_mae vit_msn wav2vec2 wav2vec2-conformer wavlm whisper xlm xlm-roberta yolos
        """
    ),
    "fill-mask": _types(
        """
        albert bert big_bird camembert convbert data2vec-text deberta deberta-v2 distilbert electra
        esm flaubert ibert layoutlm longformer megatron-bert mobilebert modernbert mpnet
        nystromformer perceiver rembert roberta roformer squeezebert xlm xlm-roberta
        """
    ),
    "image-classification": _types(
        """
        beit clip convnext convnextv2 cvt data2vec-vision deit dinov2 efficientnet hiera imagegpt
        levit metaclip_2 mobilenet_v1 mobilenet_v2 mobilevit perceiver poolformer pvt regnet resnet
        segformer swin swinv2 vit vit_msn
        """
    ),
    "image-segmentation": _types(
        """
        detr dpt maskformer mobilevit segformer
        """
    ),
    "image-to-image": _types(
        """
        swin2sr
        """
    ),
    "image-to-text": _types(
        """
        pix2struct vision-encoder-decoder
        """
    ),
    "keypoint-detection": _types(
        """
        vitpose
        """
    ),
    "masked-im": _types(
        """
        deit swin swinv2 vit
        """
    ),
    "multiple-choice": _types(
        """
        albert bert big_bird camembert convbert data2vec-text deberta-v2 distilbert electra flaubert
        ibert longformer megatron-bert mobilebert mpnet nystromformer rembert roberta roformer
        squeezebert xlm xlm-roberta
        """
    ),
    "object-detection": _types(
        """
        d_fine detr rt_detr rt_detr_v2 table-transformer yolos
        """
    ),
    "question-answering": _types(
        """
        albert bart bert big_bird bigbird_pegasus camembert convbert data2vec-text deberta
        deberta-v2 distilbert electra falcon flaubert gptj ibert layoutlmv3 lilt longformer markuplm
        mbart megatron-bert mobilebert mpnet nystromformer opt rembert roberta roformer splinter
        squeezebert xlm xlm-roberta
        """
    ),
    "reinforcement-learning": _types(
        """
        decision_transformer
        """
    ),
    "semantic-segmentation": _types(
        """
        dpt segformer
        """
    ),
    "text-classification": _types(
        """
        albert bart bert big_bird bigbird_pegasus bloom camembert convbert data2vec-text deberta
        deberta-v2 distilbert electra esm flaubert gemma gemma2 gemma3 gpt2 gpt_bigcode gpt_neo
        gpt_neox gptj ibert layoutlm layoutlmv3 lilt llama longformer markuplm mbart megatron-bert
        mistral mobilebert modernbert mpnet mpt nystromformer opt perceiver phi phi3 qwen2 qwen3
        qwen3_moe rembert roberta roformer smollm3 squeezebert xlm xlm-roberta
        """
    ),
    "text-generation": _types(
        """
        arcee bart bigbird_pegasus blenderbot blenderbot-small bloom codegen cohere deepseek_v3
        falcon gemma gemma2 gemma3 gemma3_text glm gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss gptj
        granite helium internlm2 llama marian mbart mistral mpt nemotron olmo olmo2 opt pegasus phi
        phi3 qwen2 qwen3 qwen3_moe smollm3 stablelm
        """
    ),
    "text-to-audio": _types(
        """
        musicgen speecht5 vits
        """
    ),
    "text2text-generation": _types(
        """
        bart bigbird_pegasus blenderbot blenderbot-small encoder-decoder longt5 m2m_100 marian mbart
        mt5 pegasus t5
        """
    ),
    "time-series-forecasting": _types(
        """
        patchtsmixer patchtst
        """
    ),
    "token-classification": _types(
        """
        albert bert big_bird bloom camembert convbert data2vec-text deberta deberta-v2 distilbert
        electra esm falcon flaubert gpt2 gpt_bigcode ibert layoutlm layoutlmv3 lilt longformer
        markuplm megatron-bert mobilebert modernbert mpnet mpt nystromformer qwen2 qwen3_moe rembert
        roberta roformer squeezebert xlm xlm-roberta
        """
    ),
    "zero-shot-image-classification": _types(
        """
        chinese_clip clip metaclip_2 siglip
        """
    ),
    "zero-shot-object-detection": _types(
        """
        owlv2 owlvit
        """
    ),
}
